package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"

	"google.golang.org/grpc"
)

var page = bytes.Repeat([]byte{'p'}, 64<<10)

func serve() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.ForceServerCodec(raw{}))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "stock.Stock",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Echo", Handler: echo}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Pages", Handler: pages, ServerStreams: true},
			{StreamName: "Early", Handler: early, ClientStreams: true},
		},
	}, nil)
	fmt.Println("serving", listener.Addr().(*net.TCPAddr).Port)
	return server.Serve(listener)
}

func echo(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var message []byte
	if err := decode(&message); err != nil {
		return nil, err
	}
	return &message, nil
}

func pages(_ any, stream grpc.ServerStream) error {
	var message []byte
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	count, err := strconv.Atoi(string(message))
	if err != nil {
		return err
	}
	for range count {
		if err := stream.SendMsg(&page); err != nil {
			return err
		}
	}
	return nil
}

func early(_ any, stream grpc.ServerStream) error {
	var message []byte
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	answer := []byte("early")
	return stream.SendMsg(&answer)
}
