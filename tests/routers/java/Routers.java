import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import org.apache.tomcat.util.buf.EncodedSolidusHandling;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.boot.web.embedded.tomcat.TomcatServletWebServerFactory;
import org.springframework.boot.web.server.WebServerFactoryCustomizer;
import org.springframework.boot.web.servlet.ServletRegistrationBean;
import org.springframework.boot.web.servlet.context.ServletWebServerApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.RestController;

/**
 * The app of README.md on Spring: as it comes; with its old matcher on a Tomcat that decodes slashes and takes backslashes; and, on such a
 * Tomcat, as servlets that Tomcat itself routes to.
 */
@RestController
@EnableAutoConfiguration
public class Routers {
  @GetMapping("/open")
  ResponseEntity<Void> open() {
    return operation("open", "");
  }

  @GetMapping("/item/secret")
  ResponseEntity<Void> secret() {
    return operation("secret", "");
  }

  @GetMapping("/item/{id}")
  ResponseEntity<Void> item(@PathVariable String id) {
    return operation("item", id);
  }

  @GetMapping("/box/{id}")
  ResponseEntity<Void> box(@PathVariable String id) {
    return operation("box", id);
  }

  @GetMapping("/shop/{cart}/items/{id}")
  ResponseEntity<Void> nested(@PathVariable String cart, @PathVariable String id) {
    return operation("nested", cart + "/" + id);
  }

  @GetMapping({"/admin", "/admin/**"})
  ResponseEntity<Void> admin(HttpServletRequest request) {
    return operation("admin", request.getRequestURI());
  }

  private static ResponseEntity<Void> operation(String route, String value) {
    var encoded = URLEncoder.encode(value, StandardCharsets.UTF_8);
    return ResponseEntity.ok().header("operation", (route + " " + encoded).strip()).build();
  }

  @Bean
  @ConditionalOnProperty("lenient")
  WebServerFactoryCustomizer<TomcatServletWebServerFactory> lenient() {
    return factory ->
        factory.addConnectorCustomizers(
            connector -> {
              connector.setEncodedSolidusHandling(EncodedSolidusHandling.DECODE.getValue());
              connector.setProperty("allowBackslash", "true");
            });
  }

  @Bean
  @ConditionalOnProperty("servlets")
  ServletRegistrationBean<?> secretServlet() {
    return new ServletRegistrationBean<>(new Told("secret"), "/item/secret");
  }

  @Bean
  @ConditionalOnProperty("servlets")
  ServletRegistrationBean<?> adminServlet() {
    return new ServletRegistrationBean<>(new Told("admin"), "/admin/*");
  }

  @Bean
  @ConditionalOnProperty("servlets")
  ServletRegistrationBean<?> itemServlet() {
    return new ServletRegistrationBean<>(new Told("item"), "/item/*");
  }

  /** Answers with its name, and with what follows the path that it is mapped to. */
  private static class Told extends HttpServlet {
    private final String route;

    Told(String route) {
      this.route = route;
    }

    @Override
    public String getServletName() {
      return route;
    }

    @Override
    protected void doGet(HttpServletRequest request, HttpServletResponse response) {
      var rest = request.getPathInfo() == null ? "" : request.getPathInfo().substring(1);
      response.setHeader("operation", operation(route, rest).getHeaders().getFirst("operation"));
    }
  }

  private static void serve(String name, Map<String, Object> settings) {
    var app = new SpringApplication(Routers.class);
    app.setDefaultProperties(settings);
    var context = (ServletWebServerApplicationContext) app.run();
    System.out.println("serving " + name + " " + context.getWebServer().getPort());
  }

  public static void main(String[] arguments) {
    var common =
        Map.<String, Object>of("server.address", "127.0.0.1", "server.port", "0", "spring.main.banner-mode", "off", "logging.level.root", "error",
            "spring.mvc.static-path-pattern", "/files/**", "spring.web.resources.static-locations", "file:" + arguments[0] + "/");
    serve("spring", common);
    var lenient = new java.util.HashMap<>(common);
    lenient.putAll(Map.of("lenient", "true", "spring.mvc.pathmatch.matching-strategy", "ant_path_matcher"));
    serve("spring-lenient", lenient);
    lenient.put("servlets", "true");
    serve("tomcat-lenient", lenient);
  }
}
