//! A call's question to its external authorizers, and what they have changed of it. Equal to `portable/authorizing.py`.

use std::rc::Rc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::call::answers;
use crate::call::cause::Cause;
use crate::call::ends::Down;
use crate::call::exchange::{Call, Stop};
use crate::call::gates::Told;
use crate::decision::edits::Edits;
use crate::decision::plan::{Plan, Reply};
use crate::seam::ask::{Authorized, Question};

/// A Plan's edits with what authorizers changed for one call.
#[derive(Debug)]
pub struct Granted {
    /// By the number of the route.
    pub routes: Vec<Edits>,
    pub reply: Option<Edits>,
}

/// What an authorizer's refusal says in fields, gRPC callers hear as well; those that are of its body or form are not told again.
fn beside(refused: &Reply) -> Told {
    let fields =
        refused.headers.iter().filter(|(name, _)| !name.as_str().starts_with("content-") && !answers::is_in_any_form(name));
    Told { headers: fields.cloned().collect(), again: None }
}

impl Call {
    /// Whether the call goes on; else it is answered.
    pub async fn authorize(&mut self, down: &mut Down, plan: &Plan) -> Result<bool, Stop> {
        let (answer, told) = oneshot::channel();
        self.shared.inbox.ask(Question::Authorize { head: self.head.clone(), token: plan.token.id, answer });
        let since = Instant::now();
        let told = self.guarded(down, told).await;
        self.asked = since.elapsed();
        match told?.map_err(|_| Stop::Silent)? {
            Authorized::Granted(edits) => {
                let (request, reply) = *edits;
                if !(request.is_empty() && reply.is_empty()) {
                    let routes = plan.routes.iter().map(|route| route.edits.with(&request)).collect();
                    let reply = match &plan.reply_edits {
                        known if reply.is_empty() => known.clone(),
                        Some(known) => Some(known.with(&reply)),
                        None => Some(Edits::of_hop().with(&reply)),
                    };
                    self.granted = Some(Rc::new(Granted { routes, reply }));
                }
                Ok(true)
            }
            Authorized::Refused(reply) => {
                let path = self.head.path.clone();
                self.told = Some(Box::new(beside(&reply)));
                self.reply(down, &reply, &path).await;
                Ok(false)
            }
            Authorized::Unanswered(detail) => {
                self.fail(down, Cause::Authorizer, &detail).await?;
                Ok(false)
            }
        }
    }

    /// The edits of a route for this call.
    pub fn edits<'a>(&'a self, plan: &'a Plan, route: usize) -> &'a Edits {
        self.granted.as_ref().map_or(&plan.routes[route].edits, |granted| &granted.routes[route])
    }

    /// Those of its answer.
    pub fn reply_edits<'a>(&'a self, plan: &'a Plan) -> Option<&'a Edits> {
        self.granted.as_ref().map_or(plan.reply_edits.as_ref(), |granted| granted.reply.as_ref())
    }
}
