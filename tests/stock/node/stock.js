// A plain grpc-js server and client of the service in ../README.md.
import grpc from "@grpc/grpc-js";

const asIs = (message) => message;
const method = (name, requestStream, responseStream) => ({
  path: `/stock.Stock/${name}`,
  requestStream,
  responseStream,
  requestSerialize: asIs,
  requestDeserialize: asIs,
  responseSerialize: asIs,
  responseDeserialize: asIs,
});
const SERVED = {
  echo: method("Echo", false, false),
  pages: method("Pages", false, true),
  early: method("Early", true, false),
};
const PAGE = Buffer.alloc(64 << 10, "p");
const DEADLINE_S = 30;

function serve() {
  const server = new grpc.Server();
  server.addService(SERVED, {
    echo: (call, answer) => answer(null, call.request),
    pages: (call) => {
      let left = Number(call.request.toString());
      const write = () => {
        while (left-- > 0) {
          if (!call.write(PAGE)) {
            call.once("drain", write);
            return;
          }
        }
        call.end();
      };
      write();
    },
    early: (call, answer) => call.once("data", () => answer(null, Buffer.from("early"))),
  });
  server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
    if (error) throw error;
    console.log(`serving ${port}`);
  });
}

const told = (error) => `${error.code}: ${error.details ?? error.message}`;
const options = () => ({ deadline: Date.now() + DEADLINE_S * 1000 });

const KINDS = {
  unary: (client) =>
    new Promise((done) => {
      const sent = Buffer.alloc(100, "u");
      client.echo(sent, options(), (error, got) =>
        done(error ? told(error) : sent.equals(got) ? "ok" : `another message: ${got.length} bytes`),
      );
    }),

  missing: (client) =>
    new Promise((done) => {
      client.missing(Buffer.from("m"), options(), (error) =>
        done(error?.code === grpc.status.UNIMPLEMENTED ? "ok" : `not UNIMPLEMENTED: ${error ? told(error) : "OK"}`),
      );
    }),

  pages: (client) =>
    new Promise((done) => {
      let read = 0;
      const call = client.pages(Buffer.from("4"), options());
      call.on("data", (page) => {
        if (page.length === PAGE.length) read++;
      });
      call.on("error", (error) => done(told(error)));
      call.on("end", () => done(read === 4 ? "ok" : `only ${read} pages`));
    }),

  early: (client) =>
    new Promise((done) => {
      const call = client.early(options(), (error, got) =>
        done(error ? told(error) : got.toString() === "early" ? "ok" : `another answer: ${got}`),
      );
      let left = 8;
      const write = () => {
        while (left-- > 0) {
          if (!call.write(Buffer.alloc(16 << 10))) {
            call.once("drain", write);
            return;
          }
        }
        call.end();
      };
      write();
    }),

  cancelled: (client) =>
    new Promise((done) => {
      const call = client.pages(Buffer.from("64"), options());
      call.on("data", () => {});
      call.on("error", (error) => done(error.code === grpc.status.CANCELLED ? "ok" : told(error)));
      call.on("end", () => done("ok"));
      setTimeout(() => call.cancel(), Math.random() * 5);
    }),
};

async function call(target, count, flight) {
  const service = { ...SERVED, missing: method("Missing", false, false) };
  const Client = grpc.makeGenericClientConstructor(service, "stock.Stock");
  const client = new Client(target, grpc.credentials.createInsecure());
  const results = {};
  const workers = [];
  for (const [name, kind] of Object.entries(KINDS)) {
    const outcomes = (results[name] = {});
    let left = count;
    const work = async () => {
      while (left-- > 0) {
        const outcome = await kind(client);
        outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
      }
    };
    for (let index = 0; index < flight; index++) workers.push(work());
  }
  await Promise.all(workers);
  console.log(`result ${JSON.stringify(results)}`);
  client.close();
}

const [verb, target, count, flight] = process.argv.slice(2);
if (verb === "serve") serve();
else if (verb === "call" && flight) await call(target, Number(count), Number(flight));
else throw new Error("usage: stock.js serve | call HOST:PORT COUNT FLIGHT");
