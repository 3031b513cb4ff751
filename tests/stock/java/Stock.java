import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;

/** A plain grpc-java server and client of the service in ../README.md. */
final class Stock {
  static final MethodDescriptor<byte[], byte[]> ECHO = method("Echo", MethodType.UNARY);
  static final MethodDescriptor<byte[], byte[]> MISSING = method("Missing", MethodType.UNARY);
  static final MethodDescriptor<byte[], byte[]> PAGES = method("Pages", MethodType.SERVER_STREAMING);
  static final MethodDescriptor<byte[], byte[]> EARLY = method("Early", MethodType.CLIENT_STREAMING);

  private Stock() {}

  public static void main(String[] args) throws Exception {
    if (args.length == 1 && args[0].equals("serve")) {
      StockServer.serve();
    } else if (args.length == 4 && args[0].equals("call")) {
      StockClient.call(args[1], Integer.parseInt(args[2]), Integer.parseInt(args[3]));
    } else {
      System.err.println("usage: Stock serve | call HOST:PORT COUNT FLIGHT");
      System.exit(1);
    }
  }

  private static MethodDescriptor<byte[], byte[]> method(String name, MethodType type) {
    return MethodDescriptor.<byte[], byte[]>newBuilder()
        .setType(type)
        .setFullMethodName("stock.Stock/" + name)
        .setRequestMarshaller(new Bytes())
        .setResponseMarshaller(new Bytes())
        .build();
  }

  /** Passes bytes through as the message. */
  private static final class Bytes implements MethodDescriptor.Marshaller<byte[]> {
    @Override
    public InputStream stream(byte[] value) {
      return new ByteArrayInputStream(value);
    }

    @Override
    public byte[] parse(InputStream stream) {
      try {
        return stream.readAllBytes();
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    }
  }
}
