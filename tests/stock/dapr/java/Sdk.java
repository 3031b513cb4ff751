import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.Empty;
import com.google.protobuf.StringValue;
import io.dapr.client.DaprClient;
import io.dapr.client.DaprClientBuilder;
import io.dapr.client.DaprHttp.HttpMethods;
import io.dapr.client.domain.HttpExtension;
import io.dapr.exceptions.DaprException;
import io.dapr.v1.AppCallbackGrpc;
import io.dapr.v1.AppCallbackHealthCheckGrpc;
import io.dapr.v1.CommonProtos.InvokeRequest;
import io.dapr.v1.CommonProtos.InvokeResponse;
import io.dapr.v1.DaprAppCallbackProtos.HealthCheckResponse;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.netty.NettyServerBuilder;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.AbstractBlockingStub;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.StreamObserver;
import java.net.InetSocketAddress;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import reactor.core.publisher.Mono;

/** Programs on Dapr's SDK for Java; ../README.md says what each command does. */
public final class Sdk {
  private static final ObjectMapper JSON = new ObjectMapper();

  private Sdk() {}

  public static void main(String[] arguments) throws Exception {
    switch (arguments[0]) {
      case "calls" -> tell(calls(arguments[1], arguments[2]));
      case "greets" -> tell(greets(arguments[1]));
      case "serve" -> serve(Integer.parseInt(arguments[2]));
      default -> throw new IllegalArgumentException(arguments[0]);
    }
  }

  private static Object calls(String app, String grpcApp) throws Exception {
    try (DaprClient dapr = new DaprClientBuilder().build()) {
      dapr.waitForSidecar(10_000).block();
      Map<String, Object> called = new LinkedHashMap<>();
      for (HttpMethods verb : List.of(HttpMethods.GET, HttpMethods.POST, HttpMethods.PUT, HttpMethods.PATCH, HttpMethods.DELETE)) {
        called.put(verb.name(), asked(dapr, app, verb));
      }
      Map<String, Object> told = new LinkedHashMap<>();
      told.put("called", called);
      HttpExtension code = new HttpExtension(HttpMethods.GET, Map.of("code", List.of("404")), Map.of());
      told.put("missing", failed(dapr.invokeMethod(app, "status", null, code, byte[].class)));
      told.put("nobody", failed(dapr.invokeMethod("nobody", "x", null, HttpExtension.GET, byte[].class)));
      told.put("state", failed(dapr.getState("store", "key", String.class)));
      told.put("proxied", dapr.newGrpcStub(grpcApp, EchoStub::new).unary("hello"));
      var metadata = dapr.getMetadata().block();
      told.put("metadata", Map.of("id", metadata.getId()));
      dapr.shutdown().block();
      return Map.of("http", told);
    }
  }

  private static Object asked(DaprClient dapr, String app, HttpMethods verb) throws Exception {
    Object body = verb == HttpMethods.GET ? null : Map.of("n", 1);
    Map<String, List<String>> query = new LinkedHashMap<>();
    query.put("x", List.of("1"));
    query.put("y", List.of("a b"));
    HttpExtension extension = new HttpExtension(verb, query, Map.of());
    JsonNode seen = dapr.invokeMethod(app, "echo/a b", body, extension, JsonNode.class).block();
    String type = "";
    for (JsonNode pair : seen.get("headers")) {
      if (pair.get(0).asText().equalsIgnoreCase("content-type")) {
        type = pair.get(1).asText();
      }
    }
    return Map.of(
        "method", seen.get("method").asText(),
        "target", seen.get("target").asText(),
        "body", seen.get("body").asText(),
        "type", type);
  }

  private static Object failed(Mono<?> call) {
    try {
      return Map.of("answer", String.valueOf(call.block()));
    } catch (DaprException error) {
      return Map.of("code", error.getErrorCode(), "text", error.getMessage(), "status", error.getHttpStatusCode());
    }
  }

  private static Object greets(String app) throws Exception {
    try (DaprClient dapr = new DaprClientBuilder().build()) {
      dapr.waitForSidecar(10_000).block();
      HttpExtension plain = new HttpExtension(HttpMethods.POST, Map.of(), Map.of("content-type", "text/plain"));
      byte[] answer = dapr.invokeMethod(app, "greet", "hello".getBytes(UTF_8), plain, byte[].class).block();
      return Map.of("http", JSON.readTree(answer));
    }
  }

  /** An app that implements AppCallback: the SDK has no server of its own but for Spring Boot. */
  private static void serve(int port) throws Exception {
    NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", port))
        .addService(new Greeter())
        .addService(new Healthy())
        .build()
        .start();
    System.out.println("serving " + port);
    Thread.currentThread().join();
  }

  private static void tell(Object told) throws Exception {
    System.out.println("result " + JSON.writeValueAsString(told));
  }

  private static final class Greeter extends AppCallbackGrpc.AppCallbackImplBase {
    @Override
    public void onInvoke(InvokeRequest request, StreamObserver<InvokeResponse> answer) {
      if (!request.getMethod().equals("greet")) {
        answer.onError(Status.NOT_FOUND.withDescription("no method " + request.getMethod()).asRuntimeException());
        return;
      }
      String said =
          JSON.createObjectNode()
              .put("body", request.getData().getValue().toStringUtf8())
              .put("type", request.getContentType())
              .toString();
      Any data = Any.newBuilder().setValue(ByteString.copyFromUtf8(said)).build();
      answer.onNext(InvokeResponse.newBuilder().setContentType("application/json").setData(data).build());
      answer.onCompleted();
    }
  }

  private static final class Healthy extends AppCallbackHealthCheckGrpc.AppCallbackHealthCheckImplBase {
    @Override
    public void healthCheck(Empty request, StreamObserver<HealthCheckResponse> answer) {
      answer.onNext(HealthCheckResponse.getDefaultInstance());
      answer.onCompleted();
    }
  }

  /** As protoc would make it; EchoRequest and EchoReply have the text as their first field, as StringValue does. */
  private static final class EchoStub extends AbstractBlockingStub<EchoStub> {
    private static final MethodDescriptor<StringValue, StringValue> UNARY =
        MethodDescriptor.<StringValue, StringValue>newBuilder()
            .setType(MethodDescriptor.MethodType.UNARY)
            .setFullMethodName("testing.EchoService/Unary")
            .setRequestMarshaller(ProtoUtils.marshaller(StringValue.getDefaultInstance()))
            .setResponseMarshaller(ProtoUtils.marshaller(StringValue.getDefaultInstance()))
            .build();

    private EchoStub(Channel channel) {
      this(channel, CallOptions.DEFAULT);
    }

    private EchoStub(Channel channel, CallOptions options) {
      super(channel, options);
    }

    @Override
    protected EchoStub build(Channel channel, CallOptions options) {
      return new EchoStub(channel, options);
    }

    private String unary(String text) {
      return ClientCalls.blockingUnaryCall(getChannel(), UNARY, getCallOptions(), StringValue.of(text)).getValue();
    }
  }
}
