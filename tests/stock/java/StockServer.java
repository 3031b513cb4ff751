import static java.nio.charset.StandardCharsets.UTF_8;

import io.grpc.Server;
import io.grpc.ServerServiceDefinition;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import java.net.InetSocketAddress;

final class StockServer {
  private static final byte[] PAGE = "p".repeat(64 << 10).getBytes(UTF_8);

  private StockServer() {}

  static void serve() throws Exception {
    ServerServiceDefinition service =
        ServerServiceDefinition.builder("stock.Stock")
            .addMethod(Stock.ECHO, ServerCalls.asyncUnaryCall(StockServer::echo))
            .addMethod(Stock.PAGES, ServerCalls.asyncServerStreamingCall(StockServer::pages))
            .addMethod(Stock.EARLY, ServerCalls.asyncClientStreamingCall(Early::new))
            .build();
    Server server =
        NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0)).addService(service).build().start();
    System.out.println("serving " + server.getPort());
    server.awaitTermination();
  }

  private static void echo(byte[] message, StreamObserver<byte[]> answer) {
    answer.onNext(message);
    answer.onCompleted();
  }

  private static void pages(byte[] message, StreamObserver<byte[]> answer) {
    ServerCallStreamObserver<byte[]> call = (ServerCallStreamObserver<byte[]>) answer;
    int[] left = {Integer.parseInt(new String(message, UTF_8))};
    call.setOnCancelHandler(() -> left[0] = -1);
    call.setOnReadyHandler(
        () -> {
          while (left[0] > 0 && call.isReady()) {
            left[0]--;
            call.onNext(PAGE);
          }
          if (left[0] == 0) {
            left[0] = -1;
            call.onCompleted();
          }
        });
  }

  /** Answers after the first message. */
  private static final class Early implements StreamObserver<byte[]> {
    private final StreamObserver<byte[]> answer;
    private boolean answered;

    Early(StreamObserver<byte[]> answer) {
      this.answer = answer;
    }

    @Override
    public void onNext(byte[] message) {
      if (!answered) {
        answered = true;
        answer.onNext("early".getBytes(UTF_8));
        answer.onCompleted();
      }
    }

    @Override
    public void onError(Throwable error) {}

    @Override
    public void onCompleted() {}
  }
}
