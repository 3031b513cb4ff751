// Connect's server and clients (connect-es) over HTTP/1.1, by the protocols Connect and gRPC-Web, with messages in JSON and binary. --grpc: the
// server is another program's, which speaks gRPC alone.
import { createServer } from "node:http";
import { create, createFileRegistry } from "@bufbuild/protobuf";
import {
  BytesValueSchema,
  FileDescriptorSetSchema,
  Int32ValueSchema,
  MethodOptions_IdempotencyLevel as Level,
  file_google_protobuf_wrappers,
} from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";

const BYTES = ".google.protobuf.BytesValue";
const METHODS = [
  { name: "Echo", inputType: BYTES, outputType: BYTES, options: { idempotencyLevel: Level.NO_SIDE_EFFECTS } },
  { name: "Missing", inputType: BYTES, outputType: BYTES },
  { name: "Pages", inputType: ".google.protobuf.Int32Value", outputType: BYTES, serverStreaming: true },
];
const files = create(FileDescriptorSetSchema, {
  file: [
    file_google_protobuf_wrappers.proto,
    {
      name: "stock.proto",
      package: "stock",
      syntax: "proto3",
      dependency: ["google/protobuf/wrappers.proto"],
      service: [{ name: "Stock", method: METHODS }],
    },
  ],
});
const Stock = createFileRegistry(files).getService("stock.Stock");
const timeoutMs = 30_000;

function serve() {
  const routes = (router) =>
    router.service(Stock, {
      echo: (message) => message,
      async *pages({ value }) {
        for (let index = 0; index < value; index++)
          yield create(BytesValueSchema, { value: new Uint8Array(64 << 10) });
      },
    });
  const server = createServer(connectNodeAdapter({ routes }));
  server.listen(0, "127.0.0.1", () => console.log(`serving ${server.address().port}`));
}

const KINDS = {
  unary: async (client) => {
    const sent = new Uint8Array(100).fill(117);
    const { value } = await client.echo(create(BytesValueSchema, { value: sent }), { timeoutMs });
    return Buffer.from(sent).equals(Buffer.from(value)) ? "ok" : `another message: ${value.length} bytes`;
  },

  missing: async (client) => {
    try {
      await client.missing(create(BytesValueSchema), { timeoutMs });
    } catch (error) {
      return error.code === Code.Unimplemented ? "ok" : `not UNIMPLEMENTED: ${error}`;
    }
    return "not UNIMPLEMENTED: OK";
  },

  pages: async (client) => {
    let read = 0;
    for await (const { value } of client.pages(create(Int32ValueSchema, { value: 4 }), { timeoutMs }))
      if (value.length === 64 << 10) read++;
    return read === 4 ? "ok" : `only ${read} pages`;
  },
};

function ways(baseUrl, isGrpc) {
  const web = createGrpcWebTransport({ baseUrl });
  if (isGrpc) return { web };
  return {
    web,
    "web-json": createGrpcWebTransport({ baseUrl, useBinaryFormat: false }),
    json: createConnectTransport({ baseUrl }),
    binary: createConnectTransport({ baseUrl, useBinaryFormat: true }),
    get: createConnectTransport({ baseUrl, useHttpGet: true }),
  };
}

async function call(target, count, flight, isGrpc) {
  const results = {};
  const workers = [];
  for (const [way, transport] of Object.entries(ways(`http://${target}`, isGrpc))) {
    const client = createClient(Stock, transport);
    for (const [name, kind] of Object.entries(KINDS)) {
      if (isGrpc && name === "pages") continue; // of the others' service, whose messages are no protobuf
      const outcomes = (results[`${name}-${way}`] = {});
      let left = count;
      const work = async () => {
        while (left-- > 0) {
          const outcome = await kind(client).catch(String);
          outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
        }
      };
      for (let index = 0; index < flight; index++) workers.push(work());
    }
  }
  await Promise.all(workers);
  console.log(`result ${JSON.stringify(results)}`);
}

const args = process.argv.slice(2);
const isGrpc = args[0] === "--grpc";
const [verb, target, count, flight] = isGrpc ? args.slice(1) : args;
if (verb === "serve") serve();
else if (verb === "call" && flight) await call(target, Number(count), Number(flight), isGrpc);
else throw new Error("usage: connect.js serve | [--grpc] call HOST:PORT COUNT FLIGHT");
