// The apps of README.md on net/http's ServeMux and on gorilla/mux, each on a free port of loopback.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/gorilla/mux"
)

type values func(*http.Request, string) string

func answer(w http.ResponseWriter, route, value string) {
	if value != "" {
		route += " " + url.QueryEscape(value)
	}
	w.Header().Set("operation", route)
}

func to(route string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { answer(w, route, "") }
}

func byID(route string, of values) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { answer(w, route, of(r, "id")) }
}

func nested(of values) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { answer(w, "nested", of(r, "cart")+"/"+of(r, "id")) }
}

func admin(w http.ResponseWriter, r *http.Request) { answer(w, "admin", r.URL.Path) }

func files() http.Handler { return http.StripPrefix("/files/", http.FileServer(http.Dir(os.Args[1]))) }

func onServeMux() http.Handler {
	app := http.NewServeMux()
	of := (*http.Request).PathValue
	app.HandleFunc("GET /open", to("open"))
	app.HandleFunc("GET /item/secret", to("secret"))
	app.HandleFunc("GET /item/{id}", byID("item", of))
	app.HandleFunc("GET /box/{id}", byID("box", of))
	app.HandleFunc("GET /shop/{cart}/items/{id}", nested(of))
	app.HandleFunc("/admin", admin)
	app.HandleFunc("/admin/", admin)
	app.Handle("/files/", files())
	return app
}

// A variable, which UseEncodedPath leaves to its users to unescape.
func escaped(r *http.Request, name string) string {
	value, err := url.PathUnescape(mux.Vars(r)[name])
	if err != nil {
		return mux.Vars(r)[name]
	}
	return value
}

func onGorilla(app *mux.Router, of values) http.Handler {
	app.HandleFunc("/open", to("open")).Methods("GET")
	app.HandleFunc("/item/secret", to("secret")).Methods("GET")
	app.HandleFunc("/item/{id}", byID("item", of)).Methods("GET")
	app.HandleFunc("/box/{id}", byID("box", of)).Methods("GET")
	app.HandleFunc("/shop/{cart}/items/{id}", nested(of)).Methods("GET")
	app.HandleFunc("/admin", admin)
	app.PathPrefix("/admin/").HandlerFunc(admin)
	app.PathPrefix("/files/").Handler(files())
	return app
}

func serve(name string, app http.Handler) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("serving %s %d\n", name, listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(listener, app))
}

func main() {
	go serve("net-http", onServeMux())
	go serve("gorilla", onGorilla(mux.NewRouter(), func(r *http.Request, name string) string { return mux.Vars(r)[name] }))
	serve("gorilla-lenient", onGorilla(mux.NewRouter().UseEncodedPath().SkipClean(true).StrictSlash(true), escaped))
}
