// Open Policy Agent as a server, without its other commands: `opa HOST:PORT [FILE…]`, with the policies in the files.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/open-policy-agent/opa/v1/runtime"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: opa HOST:PORT [FILE…]")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	params := runtime.NewParams()
	params.Addrs = &[]string{os.Args[1]}
	params.Paths = os.Args[2:]
	params.GracefulShutdownPeriod = 1
	params.EnableVersionCheck = false
	server, err := runtime.NewRuntime(ctx, params)
	if err == nil {
		err = server.Serve(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
