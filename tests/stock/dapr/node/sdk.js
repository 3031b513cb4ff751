// Programs on Dapr's SDK for JavaScript; ../README.md says what each command does. Releases before 3.17 call by grpc-js, later ones by connect-es.
import grpc from "@grpc/grpc-js";
import * as latest from "@dapr/dapr";
import * as older from "dapr-on-grpc-js";

const { DAPR_HTTP_PORT, DAPR_GRPC_PORT } = process.env;
const ON_GRPC_JS = "grpc-js";
const QUERY = "?x=1&y=a%20b";
const quiet = { level: latest.LogLevel.Error };

function client(way) {
  const { DaprClient, CommunicationProtocolEnum } = way === ON_GRPC_JS ? older : latest;
  const [communicationProtocol, daprPort] =
    way === "http"
      ? [CommunicationProtocolEnum.HTTP, DAPR_HTTP_PORT]
      : [CommunicationProtocolEnum.GRPC, DAPR_GRPC_PORT];
  return new DaprClient({ communicationProtocol, daprHost: "127.0.0.1", daprPort, logger: quiet });
}

async function calls(app, grpcApp) {
  const told = {};
  for (const way of ["http", "grpc", ON_GRPC_JS]) {
    const dapr = client(way);
    await dapr.start(); // which waits for the sidecar
    const healthy = await dapr.health.isHealthy();
    const called = {};
    for (const verb of Object.values(latest.HttpMethod)) {
      const query = way === "http" ? QUERY : "";
      called[verb.toUpperCase()] = asked(await dapr.invoker.invoke(app, `echo/a%20b${query}`, verb, body(verb)));
    }
    await dapr.metadata.set("owner", way);
    const { id, extended } = await dapr.metadata.get();
    told[way] = {
      healthy,
      called,
      metadata: { id, owner: extended.owner },
      nobody: await failed(dapr.invoker.invoke("nobody", "x", "get")),
      state: await failed(dapr.state.get("store", "key")),
    };
    if (way === "http") {
      told[way].missing = await failed(dapr.invoker.invoke(app, "status?code=404", "get"));
    }
    if (way === ON_GRPC_JS) {
      told[way].proxied = await proxied(dapr, grpcApp);
    }
    await dapr.stop();
  }
  const dapr = client("grpc");
  await dapr.sidecar.shutdown();
  return told;
}

const body = (verb) => (verb === "get" ? undefined : { n: 1 });

function asked({ method, target, body, headers }) {
  const type = headers.find(([name]) => name.toLowerCase() === "content-type");
  return { method, target, body, type: type?.[1] ?? "" };
}

async function failed(call) {
  try {
    return { answer: await call };
  } catch (error) {
    return { code: error.code ?? 0, text: String(error.rawMessage ?? error.details ?? error.message) };
  }
}

// The SDK names the callee by APP_ID. Messages by hand: EchoRequest and EchoReply have the text as their first field.
async function proxied(dapr, grpcApp) {
  process.env.APP_ID = grpcApp;
  const Echo = grpc.makeGenericClientConstructor(
    {
      unary: {
        path: "/testing.EchoService/Unary",
        requestStream: false,
        responseStream: false,
        requestSerialize: (text) => Buffer.from([0x0a, text.length, ...Buffer.from(text)]),
        requestDeserialize: (message) => message,
        responseSerialize: (message) => message,
        responseDeserialize: (message) => message.subarray(2, 2 + message[1]).toString(),
      },
    },
    "testing.EchoService",
  );
  const echo = await dapr.proxy.create(Echo);
  return new Promise((resolve, reject) =>
    echo.unary("hello", (error, text) => (error ? reject(error) : resolve(text))),
  );
}

async function serve(way, port) {
  const { DaprServer, CommunicationProtocolEnum } = way === ON_GRPC_JS ? older : latest;
  const http = way === "http";
  const server = new DaprServer({
    communicationProtocol: http ? CommunicationProtocolEnum.HTTP : CommunicationProtocolEnum.GRPC,
    serverHost: "127.0.0.1",
    serverPort: port,
    clientOptions: { daprHost: "127.0.0.1", daprPort: http ? DAPR_HTTP_PORT : DAPR_GRPC_PORT },
    logger: quiet,
  });
  const greet = ({ body, metadata }) => ({ body: http ? JSON.parse(body) : body, type: metadata.contentType });
  await server.invoker.listen("greet", async (data) => greet(data), { method: latest.HttpMethod.POST });
  await server.invoker.listen("healthz", async () => ({})); // of HTTP apps; by gRPC the SDK answers itself
  await server.start(); // once it listens, and the sidecar has answered
  console.log(`serving ${port}`);
}

async function greets(app) {
  const told = {};
  for (const way of ["http", "grpc", ON_GRPC_JS]) {
    const dapr = client(way);
    told[way] = await dapr.invoker.invoke(app, "greet", latest.HttpMethod.POST, "hello");
    await dapr.stop();
  }
  return told;
}

const [command, ...names] = process.argv.slice(2);
if (command === "serve") {
  await serve(...names);
} else {
  console.log(`result ${JSON.stringify(await { calls, greets }[command](...names))}`);
  process.exit(0);
}
