import static java.nio.charset.StandardCharsets.UTF_8;

import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.ClientResponseObserver;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

final class StockClient {
  private static final int DEADLINE_S = 30;
  private static final Map<String, Kind> KINDS =
      Map.of(
          "unary", StockClient::unary,
          "missing", StockClient::missing,
          "pages", StockClient::pages,
          "early", StockClient::early,
          "cancelled", StockClient::cancelled);

  private StockClient() {}

  /** One kind of call: what went wrong, or "ok". */
  private interface Kind {
    String call(ManagedChannel channel) throws Exception;
  }

  static void call(String target, int count, int flight) throws Exception {
    ManagedChannel channel = NettyChannelBuilder.forTarget(target).usePlaintext().build();
    Map<String, Map<String, Integer>> results = new TreeMap<>();
    List<Thread> threads = new ArrayList<>();
    for (Map.Entry<String, Kind> kind : KINDS.entrySet()) {
      Map<String, Integer> outcomes = new TreeMap<>();
      results.put(kind.getKey(), outcomes);
      AtomicInteger left = new AtomicInteger(count);
      for (int index = 0; index < flight; index++) {
        Thread thread =
            new Thread(
                () -> {
                  while (left.getAndDecrement() > 0) {
                    String outcome = outcome(kind.getValue(), channel);
                    synchronized (outcomes) {
                      outcomes.merge(outcome, 1, Integer::sum);
                    }
                  }
                });
        thread.start();
        threads.add(thread);
      }
    }
    for (Thread thread : threads) {
      thread.join();
    }
    System.out.println("result " + json(results));
    channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
  }

  private static String outcome(Kind kind, ManagedChannel channel) {
    try {
      return kind.call(channel);
    } catch (Exception error) {
      return error.toString();
    }
  }

  private static CallOptions options() {
    return CallOptions.DEFAULT.withDeadlineAfter(DEADLINE_S, TimeUnit.SECONDS);
  }

  private static String unary(ManagedChannel channel) {
    byte[] sent = "u".repeat(100).getBytes(UTF_8);
    byte[] got = ClientCalls.blockingUnaryCall(channel, Stock.ECHO, options(), sent);
    return Arrays.equals(sent, got) ? "ok" : "another message: " + got.length + " bytes";
  }

  private static String missing(ManagedChannel channel) {
    try {
      ClientCalls.blockingUnaryCall(channel, Stock.MISSING, options(), new byte[] {'m'});
      return "not UNIMPLEMENTED: OK";
    } catch (StatusRuntimeException error) {
      boolean expected = error.getStatus().getCode() == Status.Code.UNIMPLEMENTED;
      return expected ? "ok" : "not UNIMPLEMENTED: " + error.getMessage();
    }
  }

  private static String pages(ManagedChannel channel) {
    Iterator<byte[]> pages =
        ClientCalls.blockingServerStreamingCall(channel, Stock.PAGES, options(), "4".getBytes(UTF_8));
    int read = 0;
    for (; pages.hasNext(); read++) {
      int length = pages.next().length;
      if (length != 64 << 10) {
        return "a page of " + length + " bytes";
      }
    }
    return read == 4 ? "ok" : "only " + read + " pages";
  }

  private static String early(ManagedChannel channel) throws Exception {
    CompletableFuture<String> outcome = new CompletableFuture<>();
    ClientCalls.asyncClientStreamingCall(channel.newCall(Stock.EARLY, options()), new Sending(outcome));
    return outcome.get(DEADLINE_S + 5, TimeUnit.SECONDS);
  }

  private static String cancelled(ManagedChannel channel) throws Exception {
    CompletableFuture<String> outcome = new CompletableFuture<>();
    ClientCall<byte[], byte[]> call = channel.newCall(Stock.PAGES, options());
    ClientCalls.asyncServerStreamingCall(
        call,
        "64".getBytes(UTF_8),
        new io.grpc.stub.StreamObserver<byte[]>() {
          @Override
          public void onNext(byte[] page) {}

          @Override
          public void onError(Throwable error) {
            Status status = Status.fromThrowable(error);
            outcome.complete(status.getCode() == Status.Code.CANCELLED ? "ok" : status.toString());
          }

          @Override
          public void onCompleted() {
            outcome.complete("ok");
          }
        });
    TimeUnit.MICROSECONDS.sleep(ThreadLocalRandom.current().nextInt(5000));
    call.cancel("at random", null);
    return outcome.get(DEADLINE_S + 5, TimeUnit.SECONDS);
  }

  private static String json(Map<String, Map<String, Integer>> results) {
    List<String> kinds = new ArrayList<>();
    results.forEach(
        (kind, outcomes) -> {
          List<String> counts = new ArrayList<>();
          outcomes.forEach((outcome, count) -> counts.add(quoted(outcome) + ":" + count));
          kinds.add(quoted(kind) + ":{" + String.join(",", counts) + "}");
        });
    return "{" + String.join(",", kinds) + "}";
  }

  private static String quoted(String text) {
    return '"' + text.replaceAll("[\\\\\"\\p{Cntrl}]", " ") + '"';
  }

  /** Sends 8 messages of 16 KiB, whatever has been answered meanwhile. */
  private static final class Sending implements ClientResponseObserver<byte[], byte[]> {
    private final CompletableFuture<String> outcome;
    private String got = "";
    private int left = 8;

    Sending(CompletableFuture<String> outcome) {
      this.outcome = outcome;
    }

    @Override
    public void beforeStart(ClientCallStreamObserver<byte[]> request) {
      request.setOnReadyHandler(
          () -> {
            while (left > 0 && request.isReady()) {
              left--;
              request.onNext(new byte[16 << 10]);
            }
            if (left == 0) {
              left = -1;
              request.onCompleted();
            }
          });
    }

    @Override
    public void onNext(byte[] answer) {
      got = new String(answer, UTF_8);
    }

    @Override
    public void onError(Throwable error) {
      outcome.complete(Status.fromThrowable(error).toString());
    }

    @Override
    public void onCompleted() {
      outcome.complete(got.equals("early") ? "ok" : "another answer: " + got);
    }
  }
}
