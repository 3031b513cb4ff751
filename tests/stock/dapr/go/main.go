// Programs on Dapr's SDK for Go; ../README.md says what each command does.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
	daprgrpc "github.com/dapr/go-sdk/service/grpc"
	daprhttp "github.com/dapr/go-sdk/service/http"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const target = "echo/a%20b?x=1&y=a%20b"

func main() {
	client.SetLogger(nil)
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	switch command, names := os.Args[1], os.Args[2:]; command {
	case "calls":
		tell(map[string]any{"grpc": calls(ctx, names[0], names[1])})
	case "greets":
		tell(map[string]any{"grpc": greets(ctx, names[0])})
	case "serve":
		serve(names[0], names[1])
	}
}

func calls(ctx context.Context, app, grpcApp string) map[string]any {
	dapr := must(client.NewClient())
	check(dapr.Wait(ctx, 10*time.Second))
	told := map[string]any{
		"called":  called(ctx, dapr, app),
		"missing": failed(dapr.InvokeMethod(ctx, app, "status?code=404", "get")),
		"nobody":  failed(dapr.InvokeMethod(ctx, "nobody", "x", "get")),
		"state":   failed(dapr.GetState(ctx, "store", "key", nil)),
		"proxied": proxied(ctx, dapr, grpcApp),
	}
	check(dapr.SetMetadata(ctx, "owner", "grpc"))
	found := must(dapr.GetMetadata(ctx))
	told["metadata"] = map[string]string{"id": found.ID, "owner": found.ExtendedMetadata["owner"]}
	check(dapr.Shutdown(ctx))
	return told
}

// Each method of the client that calls apps, with the verbs that go with it.
func called(ctx context.Context, dapr client.Client, app string) map[string]any {
	content := &client.DataContent{Data: []byte(`{"n":1}`), ContentType: "application/json"}
	custom := map[string]int{"n": 1}
	return map[string]any{
		"GET":    asked(dapr.InvokeMethod(ctx, app, target, "get")),
		"POST":   asked(dapr.InvokeMethodWithContent(ctx, app, target, "post", content)),
		"PUT":    asked(dapr.InvokeMethodWithContent(ctx, app, target, "put", content)),
		"PATCH":  asked(dapr.InvokeMethodWithCustomContent(ctx, app, target, "patch", "application/json", custom)),
		"DELETE": asked(dapr.InvokeMethodWithCustomContent(ctx, app, target, "delete", "application/json", custom)),
	}
}

func asked(answer []byte, err error) map[string]string {
	check(err)
	var seen struct {
		Method, Target, Body string
		Headers              [][2]string
	}
	check(json.Unmarshal(answer, &seen))
	told := map[string]string{"method": seen.Method, "target": seen.Target, "body": seen.Body, "type": ""}
	for _, pair := range seen.Headers {
		if pair[0] == "content-type" || pair[0] == "Content-Type" {
			told["type"] = pair[1]
		}
	}
	return told
}

func failed[T any](_ T, err error) map[string]any {
	found := status.Convert(err)
	return map[string]any{"code": found.Code(), "text": found.Message()}
}

// EchoRequest and EchoReply have the text as their first field, as StringValue does. With an API token the SDK sends that alone and
// drops dapr-app-id; then the sidecar goes by the name of the service.
func proxied(ctx context.Context, dapr client.Client, app string) string {
	ctx = metadata.AppendToOutgoingContext(ctx, "dapr-app-id", app)
	answer := new(wrapperspb.StringValue)
	check(dapr.GrpcClientConn().Invoke(ctx, "/testing.EchoService/Unary", wrapperspb.String("hello"), answer))
	return answer.GetValue()
}

func greets(ctx context.Context, app string) any {
	dapr := must(client.NewClient())
	content := &client.DataContent{Data: []byte("hello"), ContentType: "text/plain"}
	var told any
	check(json.Unmarshal(must(dapr.InvokeMethodWithContent(ctx, app, "greet", "post", content)), &told))
	return told
}

func serve(way, port string) {
	address := "127.0.0.1:" + port
	var app common.Service
	if way == "http" {
		app = daprhttp.NewService(address)
	} else {
		app = must(daprgrpc.NewService(address))
	}
	check(app.AddServiceInvocationHandler("/greet", greet))
	check(app.AddHealthCheckHandler("healthz", func(context.Context) error { return nil }))
	go tellPort(address, port)
	check(app.Start())
}

func greet(_ context.Context, in *common.InvocationEvent) (*common.Content, error) {
	told, err := json.Marshal(map[string]string{"body": string(in.Data), "type": in.ContentType})
	return &common.Content{Data: told, ContentType: "application/json"}, err
}

// Once it listens, of which the SDK tells nobody.
func tellPort(address, port string) {
	for {
		if probe, err := net.Dial("tcp", address); err == nil {
			probe.Close()
			fmt.Println("serving", port)
			return
		}
	}
}

func tell(told any) {
	fmt.Printf("result %s\n", must(json.Marshal(told)))
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
