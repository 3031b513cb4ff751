use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service;

use crate::{Failure, Raw};

pub async fn serve() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("serving {}", listener.local_addr()?.port());
    let incoming = TcpListenerStream::new(listener);
    Ok(Server::builder().add_service(Stock).serve_with_incoming(incoming).await?)
}

#[derive(Clone)]
struct Stock;

impl NamedService for Stock {
    const NAME: &'static str = "stock.Stock";
}

/// What tonic's generated servers do.
impl Service<http::Request<Body>> for Stock {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(Raw);
            Ok(match request.uri().path() {
                "/stock.Stock/Echo" => grpc.unary(Echo, request).await,
                "/stock.Stock/Pages" => grpc.server_streaming(Pages, request).await,
                "/stock.Stock/Early" => grpc.client_streaming(Early, request).await,
                _ => Status::unimplemented("").into_http(),
            })
        })
    }
}

struct Echo;

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

struct Pages;

impl ServerStreamingService<Bytes> for Pages {
    type Response = Bytes;
    type ResponseStream = tokio_stream::Iter<Box<dyn Iterator<Item = Result<Bytes, Status>> + Send>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let count = std::str::from_utf8(request.get_ref()).ok().and_then(|text| text.parse().ok());
        ready(match count {
            Some(count) => {
                let page = Bytes::from(vec![b'p'; 64 << 10]);
                let pages: Box<dyn Iterator<Item = _> + Send> = Box::new((0..count).map(move |_: u32| Ok(page.clone())));
                Ok(Response::new(tokio_stream::iter(pages)))
            }
            None => Err(Status::invalid_argument("the message is how many pages")),
        })
    }
}

struct Early;

impl tonic::server::ClientStreamingService<Bytes> for Early {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(async move {
            request.into_inner().message().await?;
            Ok(Response::new(Bytes::from_static(b"early")))
        })
    }
}
