// A real OpenTelemetry collector, and a real OpenTelemetry SDK as a client, for tests of OTLP.
//
//	collector --config FILE          receives OTLP, and sends what it got on as the file says
//	collector export PROTOCOL URL N  sends N spans of the service `go-app` to URL, in one trace, whose id it prints
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/otlphttpexporter"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
)

func main() {
	var err error
	if len(os.Args) == 5 && os.Args[1] == "export" {
		err = export(os.Args[2], os.Args[3], os.Args[4])
	} else {
		err = collect()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func collect() error {
	files := confmap.ResolverSettings{
		DefaultScheme:     "file",
		ProviderFactories: []confmap.ProviderFactory{fileprovider.NewFactory()},
	}
	return otelcol.NewCommand(otelcol.CollectorSettings{
		BuildInfo:              component.BuildInfo{Command: "collector", Version: "test"},
		Factories:              factories,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{ResolverSettings: files},
	}).Execute()
}

func factories() (otelcol.Factories, error) {
	receivers, err := otelcol.MakeFactoryMap[receiver.Factory](otlpreceiver.NewFactory())
	if err != nil {
		return otelcol.Factories{}, err
	}
	exporters, err := otelcol.MakeFactoryMap[exporter.Factory](otlphttpexporter.NewFactory())
	telemetry := otelconftelemetry.NewFactory()
	return otelcol.Factories{Receivers: receivers, Exporters: exporters, Telemetry: telemetry}, err
}

func export(protocol, url, count string) error {
	ctx := context.Background()
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	var client trace.SpanExporter
	if protocol == "grpc" {
		client, err = otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(url), otlptracegrpc.WithCompressor("gzip"))
	} else {
		client, err = otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(url), otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	}
	if err != nil {
		return err
	}
	made := resource.NewSchemaless(attribute.String("service.name", "go-app"))
	provider := trace.NewTracerProvider(trace.WithBatcher(client), trace.WithResource(made))
	tracer := provider.Tracer("stock")
	parent, root := tracer.Start(ctx, "root")
	for i := 1; i < n; i++ {
		_, span := tracer.Start(parent, fmt.Sprintf("step %d", i))
		span.SetAttributes(attribute.Int("number", i))
		span.AddEvent("worked")
		span.End()
	}
	root.End()
	fmt.Println(root.SpanContext().TraceID())
	if err := provider.ForceFlush(ctx); err != nil {
		return err
	}
	return provider.Shutdown(ctx)
}
