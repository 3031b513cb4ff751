// A plain grpc-go server and client of the service in ../README.md.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "serve":
		err = serve()
	case len(os.Args) == 5 && os.Args[1] == "call":
		count, countErr := strconv.Atoi(os.Args[3])
		flight, flightErr := strconv.Atoi(os.Args[4])
		if countErr != nil || flightErr != nil {
			err = fmt.Errorf("COUNT and FLIGHT are numbers: %v", os.Args[3:])
			break
		}
		err = call(context.Background(), os.Args[2], count, flight)
	default:
		err = fmt.Errorf("usage: %s serve | call HOST:PORT COUNT FLIGHT", os.Args[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// raw passes bytes through as the message.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(value any) ([]byte, error) { return *value.(*[]byte), nil }

func (raw) Unmarshal(data []byte, value any) error {
	*value.(*[]byte) = append([]byte(nil), data...)
	return nil
}
