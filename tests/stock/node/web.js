// A client by the grpc-web library, in both of its formats, of the service in ../README.md. Without a browser, xhr2 lends it XMLHttpRequest.
import grpcWeb from "grpc-web";
import xhr2 from "xhr2";

globalThis.XMLHttpRequest = xhr2.XMLHttpRequest;

const asIs = (message) => message;
const method = (name, type) =>
  new grpcWeb.MethodDescriptor(`/stock.Stock/${name}`, type, Uint8Array, Uint8Array, asIs, asIs);
const ECHO = method("Echo", "unary");
const MISSING = method("Missing", "unary");
const PAGES = method("Pages", "server_streaming");
const UNIMPLEMENTED = 12;

const told = (error) => `${error.code}: ${error.message}`;
const metadata = () => ({ deadline: String(Date.now() + 30_000) });

const KINDS = {
  unary: async (client, origin) => {
    const sent = new Uint8Array(100).fill(117);
    const got = await client.unaryCall(`${origin}/stock.Stock/Echo`, sent, metadata(), ECHO);
    return Buffer.from(sent).equals(Buffer.from(got)) ? "ok" : `another message: ${got.length} bytes`;
  },

  missing: async (client, origin) => {
    try {
      await client.unaryCall(`${origin}/stock.Stock/Missing`, new Uint8Array(1), metadata(), MISSING);
    } catch (error) {
      return error.code === UNIMPLEMENTED ? "ok" : `not UNIMPLEMENTED: ${told(error)}`;
    }
    return "not UNIMPLEMENTED: OK";
  },

  pages: (client, origin) =>
    new Promise((done, fail) => {
      let read = 0;
      const message = new TextEncoder().encode("4");
      const call = client.serverStreaming(`${origin}/stock.Stock/Pages`, message, metadata(), PAGES);
      call.on("data", (page) => {
        if (page.length === 64 << 10) read++;
      });
      call.on("error", fail);
      call.on("end", () => done(read === 4 ? "ok" : `only ${read} pages`));
    }),
};

async function call(target, count, flight) {
  const results = {};
  const workers = [];
  for (const format of ["binary", "text"]) {
    const client = new grpcWeb.GrpcWebClientBase({ format });
    for (const [name, kind] of Object.entries(KINDS)) {
      const outcomes = (results[`${name}-${format}`] = {});
      let left = count;
      const work = async () => {
        while (left-- > 0) {
          const outcome = await kind(client, `http://${target}`).catch(told);
          outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
        }
      };
      for (let index = 0; index < flight; index++) workers.push(work());
    }
  }
  await Promise.all(workers);
  console.log(`result ${JSON.stringify(results)}`);
}

const [verb, target, count, flight] = process.argv.slice(2);
if (verb !== "call" || !flight) throw new Error("usage: web.js call HOST:PORT COUNT FLIGHT");
await call(target, Number(count), Number(flight));
