import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

/** GET and POST by the client of Java's own library, which offers h2c with the first request on a connection. */
public class HttpClientCalls {
    public static void main(String[] arguments) throws Exception {
        URI echo = URI.create(arguments[0]);
        for (boolean bodyFirst : new boolean[] {false, true}) {
            HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_2).build();
            for (int number = 0; number < 4; number++) {
                HttpRequest.Builder request = HttpRequest.newBuilder(echo);
                if ((number % 2 == 0) == bodyFirst) {
                    request.POST(BodyPublishers.ofString("a body of " + "x".repeat(100_000)));
                }
                var answer = client.send(request.build(), BodyHandlers.ofString());
                boolean hasBody = answer.body().contains("a body of x");
                System.out.println(answer.statusCode() + " " + answer.version() + " " + hasBody);
            }
        }
        System.exit(0); // its threads stay
    }
}
