// The apps of README.md on Express 4 and 5 and Fastify 4 and 5, each on a free port of loopback.
import express4 from "express4";
import express5 from "express5";
import fastify4 from "fastify4";
import fastify5 from "fastify5";

const files = process.argv[2];
const operation = (route, value = "") => `${route} ${encodeURIComponent(value)}`.trim();

function onExpress(name, express) {
  const app = express();
  const to = (route, value) => (request, response) =>
    response.set("operation", operation(route, value?.(request))).end();
  app.get("/open", to("open"));
  app.get("/item/secret", to("secret"));
  app.get("/item/:id", to("item", (request) => request.params.id));
  app.get("/box/:id", to("box", (request) => request.params.id));
  app.get("/shop/:cart/items/:id", to("nested", (request) => `${request.params.cart}/${request.params.id}`));
  app.use("/admin", to("admin", (request) => request.path));
  app.use("/files", express.static(files));
  const server = app.listen(0, "127.0.0.1", () => console.log(`serving ${name} ${server.address().port}`));
}

async function onFastify(name, fastify, options = {}) {
  const app = fastify(options);
  const to = (route, value) => (request, reply) =>
    reply.header("operation", operation(route, value?.(request))).send();
  app.get("/open", to("open"));
  app.get("/item/secret", to("secret"));
  app.get("/item/:id", to("item", (request) => request.params.id));
  app.get("/box/:id", to("box", (request) => request.params.id));
  app.get("/shop/:cart/items/:id", to("nested", (request) => `${request.params.cart}/${request.params.id}`));
  app.get("/admin", to("admin"));
  app.get("/admin/*", to("admin", (request) => request.params["*"]));
  await app.listen({ port: 0, host: "127.0.0.1" });
  console.log(`serving ${name} ${app.server.address().port}`);
}

const lenient = {
  routerOptions: { ignoreTrailingSlash: true, ignoreDuplicateSlashes: true, useSemicolonDelimiter: true },
};
onExpress("express-4", express4);
onExpress("express-5", express5);
await onFastify("fastify-4", fastify4);
await onFastify("fastify-5", fastify5);
await onFastify("fastify-5-lenient", fastify5, lenient);
