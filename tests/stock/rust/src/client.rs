use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::{Failure, Raw};

const DEADLINE: Duration = Duration::from_secs(30);
const KINDS: [&str; 5] = ["unary", "missing", "pages", "early", "cancelled"];

type Outcomes = BTreeMap<&'static str, BTreeMap<String, usize>>;

pub async fn call(target: &str, count: usize, flight: usize) -> Result<(), Failure> {
    let channel = Endpoint::from_shared(format!("http://{target}"))?.connect_lazy();
    let results = Arc::new(Mutex::new(Outcomes::new()));
    let mut workers = JoinSet::new();
    for kind in KINDS {
        let left = Arc::new(AtomicUsize::new(count));
        for _ in 0..flight {
            let (channel, left, results) = (channel.clone(), Arc::clone(&left), Arc::clone(&results));
            workers.spawn(async move {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    let outcome = match timeout(DEADLINE, one(kind, channel.clone())).await {
                        Ok(Ok(())) => "ok".to_owned(),
                        Ok(Err(told)) => told,
                        Err(_) => "no end within the deadline".to_owned(),
                    };
                    *results.lock().unwrap().entry(kind).or_default().entry(outcome).or_default() += 1;
                }
            });
        }
    }
    while let Some(ended) = workers.join_next().await {
        ended?;
    }
    println!("result {}", serde_json::to_string(&*results.lock().unwrap())?);
    Ok(())
}

async fn one(kind: &str, channel: Channel) -> Result<(), String> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| error.to_string())?;
    match kind {
        "unary" => unary(grpc).await,
        "missing" => missing(grpc).await,
        "pages" => read_pages(grpc, "4").await.and_then(|read| match read {
            4 => Ok(()),
            _ => Err(format!("only {read} pages")),
        }),
        "early" => send_past_answer(grpc).await,
        _ => cancelled(grpc).await,
    }
}

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(method)
}

fn told(status: Status) -> String {
    let source = std::error::Error::source(&status).map(|source| format!(" ({source:?})"));
    format!("{:?}: {}{}", status.code(), status.message(), source.unwrap_or_default())
}

async fn unary(mut grpc: Grpc<Channel>) -> Result<(), String> {
    let sent = Bytes::from(vec![b'u'; 100]);
    let request = Request::new(sent.clone());
    let got = grpc.unary(request, path("/stock.Stock/Echo"), Raw).await.map_err(told)?.into_inner();
    if got == sent { Ok(()) } else { Err(format!("another message: {} bytes", got.len())) }
}

async fn missing(mut grpc: Grpc<Channel>) -> Result<(), String> {
    let request = Request::new(Bytes::from_static(b"m"));
    match grpc.unary(request, path("/stock.Stock/Missing"), Raw).await {
        Err(status) if status.code() == Code::Unimplemented => Ok(()),
        Err(status) => Err(format!("not UNIMPLEMENTED: {}", told(status))),
        Ok(_) => Err("not UNIMPLEMENTED: OK".to_owned()),
    }
}

async fn read_pages(mut grpc: Grpc<Channel>, count: &'static str) -> Result<usize, String> {
    let request = Request::new(Bytes::from_static(count.as_bytes()));
    let answer = grpc.server_streaming(request, path("/stock.Stock/Pages"), Raw).await;
    let mut pages = answer.map_err(told)?.into_inner();
    let mut read = 0;
    while let Some(page) = pages.message().await.map_err(told)? {
        if page.len() != 64 << 10 {
            return Err(format!("a page of {} bytes", page.len()));
        }
        read += 1;
    }
    Ok(read)
}

async fn send_past_answer(mut grpc: Grpc<Channel>) -> Result<(), String> {
    let messages = tokio_stream::iter((0..8).map(|_| Bytes::from(vec![0; 16 << 10])));
    let answer = grpc.client_streaming(Request::new(messages), path("/stock.Stock/Early"), Raw).await;
    let got = answer.map_err(told)?.into_inner();
    if got == "early" { Ok(()) } else { Err(format!("another answer: {got:?}")) }
}

/// Dropping the call is how tonic's clients cancel.
async fn cancelled(grpc: Grpc<Channel>) -> Result<(), String> {
    tokio::select! {
        read = read_pages(grpc, "64") => read.map(|_| ()),
        () = sleep(Duration::from_micros(rand::random_range(0..5000))) => Ok(()),
    }
}
