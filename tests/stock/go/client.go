package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const deadline = 30 * time.Second

var kinds = map[string]func(context.Context, *grpc.ClientConn) error{
	"unary": unary, "missing": missing, "pages": readPages, "early": sendPastAnswer, "cancelled": cancelled,
}

func call(ctx context.Context, target string, count, flight int) error {
	connection, err := grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		return err
	}
	defer connection.Close()
	var lock sync.Mutex
	var all sync.WaitGroup
	results := map[string]map[string]int{}
	for name, kind := range kinds {
		results[name] = map[string]int{}
		left := make(chan struct{}, count)
		for range count {
			left <- struct{}{}
		}
		close(left)
		for range flight {
			all.Go(func() {
				for range left {
					outcome := "ok"
					within, done := context.WithTimeout(ctx, deadline)
					if err := kind(within, connection); err != nil {
						outcome = err.Error()
					}
					done()
					lock.Lock()
					results[name][outcome]++
					lock.Unlock()
				}
			})
		}
	}
	all.Wait()
	told, err := json.Marshal(results)
	fmt.Println("result", string(told))
	return err
}

func unary(ctx context.Context, connection *grpc.ClientConn) error {
	sent, got := bytes.Repeat([]byte{'u'}, 100), []byte(nil)
	if err := connection.Invoke(ctx, "/stock.Stock/Echo", &sent, &got); err != nil {
		return err
	}
	if !bytes.Equal(sent, got) {
		return fmt.Errorf("another message: %d bytes", len(got))
	}
	return nil
}

func missing(ctx context.Context, connection *grpc.ClientConn) error {
	sent, got := []byte("m"), []byte(nil)
	err := connection.Invoke(ctx, "/stock.Stock/Missing", &sent, &got)
	if status.Code(err) == codes.Unimplemented {
		return nil
	}
	return fmt.Errorf("not UNIMPLEMENTED: %w", err)
}

func startPages(ctx context.Context, connection *grpc.ClientConn, count string) (grpc.ClientStream, error) {
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/stock.Stock/Pages")
	if err != nil {
		return nil, err
	}
	sent := []byte(count)
	// EOF: the call has ended, and RecvMsg says how.
	if err := stream.SendMsg(&sent); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return stream, stream.CloseSend()
}

func readPages(ctx context.Context, connection *grpc.ClientConn) error {
	stream, err := startPages(ctx, connection, "4")
	if err != nil {
		return err
	}
	for read := 0; ; read++ {
		var got []byte
		err := stream.RecvMsg(&got)
		switch {
		case errors.Is(err, io.EOF) && read == 4:
			return nil
		case err != nil:
			return fmt.Errorf("after %d pages: %w", read, err)
		case len(got) != 64<<10:
			return fmt.Errorf("a page of %d bytes", len(got))
		}
	}
}

func sendPastAnswer(ctx context.Context, connection *grpc.ClientConn) error {
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/stock.Stock/Early")
	if err != nil {
		return err
	}
	sent := make([]byte, 16<<10)
	for range 8 {
		if err := stream.SendMsg(&sent); err != nil {
			break // the answer is there
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	var got []byte
	if err := stream.RecvMsg(&got); err != nil {
		return err
	}
	if string(got) != "early" {
		return fmt.Errorf("another answer: %q", got)
	}
	return nil
}

func cancelled(ctx context.Context, connection *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	time.AfterFunc(time.Duration(rand.IntN(5000))*time.Microsecond, cancel)
	stream, err := startPages(ctx, connection, "64")
	for err == nil {
		var got []byte
		err = stream.RecvMsg(&got)
	}
	if errors.Is(err, io.EOF) || status.Code(err) == codes.Canceled {
		return nil
	}
	return err
}
