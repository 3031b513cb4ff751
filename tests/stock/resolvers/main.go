// Dapr's own name resolvers, one process each: it registers as a sidecar would, and answers for each app-id that it reads.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/dapr/components-contrib/nameresolution"
	"github.com/dapr/components-contrib/nameresolution/hashicorp/consul"
	"github.com/dapr/components-contrib/nameresolution/sqlite"
	"github.com/dapr/kit/logger"
)

var resolvers = map[string]func(logger.Logger) nameresolution.Resolver{
	"consul": consul.NewResolver,
	"sqlite": sqlite.NewResolver,
}

type given struct {
	Component     string
	Instance      nameresolution.Instance
	Configuration any
}

func main() {
	var from given
	if err := json.Unmarshal([]byte(os.Args[1]), &from); err != nil {
		panic(err)
	}
	log := logger.NewLogger("resolver")
	resolver := resolvers[from.Component](log)
	metadata := nameresolution.Metadata{Instance: from.Instance, Configuration: from.Configuration}
	if err := resolver.Init(context.Background(), metadata); err != nil {
		fmt.Println("failed", err)
		os.Exit(1)
	}
	fmt.Println("registered")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		address, err := resolver.ResolveID(ctx, nameresolution.ResolveRequest{ID: lines.Text()})
		cancel()
		if err != nil {
			fmt.Println("none", lines.Text(), err)
		} else {
			fmt.Println("found", lines.Text(), address)
		}
	}
	if err := resolver.Close(); err != nil {
		fmt.Println("failed", err)
		os.Exit(1)
	}
	fmt.Println("closed")
}
