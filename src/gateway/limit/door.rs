//! Stands before each route that costs a tenant something, behind [`access`](crate::gateway::access): what is over a
//! limit is refused here, before anything of it is read, and what was refused further in is told the same way.
//!
//! ```text
//! write:   share of what is in flight ─▶ place ─▶ samples left? ─▶ take requests, bytes ─▶ handler, which takes samples
//! import:  share of what is in flight ─▶ place ─▶ take requests ─▶ handler; its body comes as bytes are left
//! query:   share of what is in flight ─▶ place ─▶ take queries ─▶ handler
//! ```

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State as Extract},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use smallvec::SmallVec;

use super::{Limiter, fields, places::Place};
use crate::{
    gateway::{
        State,
        access::{Access, Caller},
        api::write,
        error::ApiError,
        in_flight::{InFlight, TenantShare},
        routes::Route,
    },
    ingest::Rejections,
    model::{Limit, OverLimit, TenantId, TenantLimits},
};

/// What a route costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// A write request whose body is read whole.
    Write,
    /// A write request whose body is read as it comes, for as long as it comes.
    Import,
    /// A query.
    Query,
}

/// What was refused of a request that was taken in part; in the extensions of its answer.
#[derive(Clone, Debug)]
pub struct Refused(pub Arc<Rejections>);

impl Cost {
    /// What a route costs; none is nothing that is limited.
    pub fn of(route: &Route) -> Option<Self> {
        match (route.access, route.path) {
            (Access::Write, "/api/v1/import") => Some(Self::Import),
            (Access::Write, _) => Some(Self::Write),
            // Who asks why they are refused is not refused, nor who wants to end what runs.
            (
                Access::Read,
                "/api/v1/status/rejections"
                | "/api/v1/status/active_queries"
                | "/api/v1/status/active_queries/{id}"
                | "/api/v1/status/top_queries",
            ) => None,
            (Access::Read, _) => Some(Self::Query),
            (Access::Open | Access::Known | Access::Delete | Access::Admin | Access::Watch, _) => None,
        }
    }

    fn places(self) -> Limit {
        match self {
            Self::Write | Self::Import => Limit::ConcurrentWrites,
            Self::Query => Limit::ConcurrentQueries,
        }
    }

    /// The rates of which answers tell what is left.
    fn rates(self) -> &'static [Limit] {
        match self {
            Self::Write => &[Limit::Samples, Limit::Bytes, Limit::WriteRequests],
            Self::Import => &[],
            Self::Query => &[Limit::Queries],
        }
    }
}

/// A door's state.
#[derive(Clone, Debug)]
pub struct Door {
    state: Arc<State>,
    in_flight: Arc<InFlight>,
    cost: Cost,
}

impl Door {
    /// The door of a route.
    pub fn new(state: &Arc<State>, in_flight: &Arc<InFlight>, cost: Cost) -> Self {
        Self { state: Arc::clone(state), in_flight: Arc::clone(in_flight), cost }
    }
}

/// Lets a request on if its tenants' limits allow it, and says on its answer what they have left.
pub async fn enter(Extract(door): Extract<Door>, mut request: Request, next: Next) -> Response {
    let Some(caller) = request.extensions().get::<Caller>().cloned() else {
        return ApiError::internal("a route that costs something has no caller").into_response();
    };
    let Some(tenant) = caller.tenants.first() else { return next.run(request).await };
    let announced = HttpBody::size_hint(request.body()).exact();
    let held = match door.admit(&caller, announced).await {
        Ok(held) => held,
        Err(refusal) => {
            let answer = match refusal {
                Refusal::Full(full) => full.into_response(),
                Refusal::Over(tenant, over) => {
                    let mut answer = door.cost.refuse(over);
                    let limits = door.limits_of(&caller, &tenant);
                    door.settle_refusal(&tenant, &limits, &mut answer, None);
                    answer
                }
            };
            door.state.limiter.counters.unread.fetch_add(1, Ordering::Relaxed);
            return answer;
        }
    };
    held.share.bind(request.extensions_mut());
    if door.cost == Cost::Import && caller.limits.get(Limit::Bytes).is_some() {
        request = request.map(|body| metered(body, &door.state, tenant, &caller.limits));
    }
    let mut answer = next.run(request).await;
    door.settle(&caller, &mut answer, announced);
    keep(answer, held)
}

/// What a request holds until it is answered.
#[derive(Debug)]
struct Held {
    share: TenantShare,
    _places: SmallVec<[Place; 1]>,
}

enum Refusal {
    /// There is no room, whoever it is for.
    Full(ApiError),
    /// This tenant is over a limit.
    Over(TenantId, OverLimit),
}

impl Door {
    async fn admit(&self, caller: &Caller, announced: Option<u64>) -> Result<Held, Refusal> {
        let Some(first) = caller.tenants.first() else {
            return Err(Refusal::Full(ApiError::internal("a caller without a tenant")));
        };
        let share = self.in_flight.share(first).map_err(Refusal::Full)?;
        let mut places = SmallVec::new();
        // Who asks of several tenants at once costs each of them a query, within that tenant's own limits.
        for tenant in &*caller.tenants {
            let limits = self.limits_of(caller, tenant);
            let admitted = self.admit_one(tenant, &limits, announced).await;
            places.extend(admitted.map_err(|over| Refusal::Over(tenant.clone(), over))?);
        }
        Ok(Held { share, _places: places })
    }

    /// The limits of one of the caller's tenants.
    fn limits_of(&self, caller: &Caller, tenant: &TenantId) -> Arc<TenantLimits> {
        match &*caller.tenants {
            [_] => Arc::clone(&caller.limits),
            _ => self.state.limiter.table().limits_of(tenant, &caller.principal.limits),
        }
    }

    /// Takes a place, and what the request costs as far as its head tells.
    async fn admit_one(
        &self,
        tenant: &TenantId,
        limits: &TenantLimits,
        announced: Option<u64>,
    ) -> Result<Option<Place>, OverLimit> {
        let limiter = &self.state.limiter;
        match self.cost {
            Cost::Write | Cost::Import => limiter.crowd.note(tenant, limits),
            Cost::Query => {}
        }
        let place = limiter.place(tenant, limits, self.cost.places())?;
        match self.cost {
            Cost::Query => limiter.take(tenant, limits, &[(Limit::Queries, 1)]).await?,
            Cost::Import => limiter.take(tenant, limits, &[(Limit::WriteRequests, 1)]).await?,
            Cost::Write => {
                if limits.get(Limit::Samples).is_some() {
                    // What is dropped when it is refused is not refused on a guess.
                    let guessed = announced.filter(|_| !limits.refuses_for_good(Limit::Samples));
                    let likely = limiter.densities.at_least(tenant, guessed.unwrap_or(0));
                    limiter.look_likely(tenant, limits, likely)?;
                }
                // What is too large to be read is refused for that, and what comes without its length pays when that is
                // known.
                let readable = |bytes: &u64| *bytes <= self.state.config.write_body.max_bytes as u64;
                match announced.filter(readable) {
                    Some(bytes) => {
                        let costs = [(Limit::WriteRequests, 1), (Limit::Bytes, bytes)];
                        limiter.take(tenant, limits, &costs).await?;
                    }
                    None => {
                        limiter.look(tenant, limits, Limit::Bytes, 1)?;
                        limiter.take(tenant, limits, &[(Limit::WriteRequests, 1)]).await?;
                    }
                }
            }
        }
        Ok(place)
    }

    /// Counts what was refused further in, remembers it for its tenant, and says on the answer what is left.
    fn settle(&self, caller: &Caller, answer: &mut Response, announced: Option<u64>) {
        // What a query of several tenants may cost is the strictest of their limits, and none of the others' business.
        let [tenant] = &*caller.tenants else {
            if let Some(over) = answer.extensions_mut().remove::<OverLimit>() {
                self.state.limiter.count(&over);
            }
            return;
        };
        let limiter = &self.state.limiter;
        if let Some(Refused(rejections)) = answer.extensions_mut().remove::<Refused>() {
            rejections.over.iter().for_each(|over| limiter.count(over));
            limiter.rejections.samples(tenant, &rejections, self.state.clock.now());
        }
        if self.settle_refusal(tenant, &caller.limits, answer, announced) {
            return;
        }
        let rates = self.cost.rates().iter();
        let remaining = rates.filter_map(|rate| limiter.remaining_of(tenant, &caller.limits, *rate));
        // Of several rates the one of which least is left is the one to heed.
        if let Some(tightest) = remaining.min_by_key(|remaining| {
            let left = remaining.level.map_or(remaining.burst, |level| level.left);
            u128::from(left) * 1_000_000 / u128::from(remaining.burst.max(1))
        }) {
            fields::of_rate(answer.headers_mut(), &tightest, None);
        }
    }
}

impl Door {
    /// The same where a limit stood in the way of all of it; tells whether one did.
    fn settle_refusal(
        &self,
        tenant: &TenantId,
        limits: &TenantLimits,
        answer: &mut Response,
        announced: Option<u64>,
    ) -> bool {
        let limiter = &self.state.limiter;
        let Some(over) = answer.extensions_mut().remove::<OverLimit>() else { return false };
        limiter.count(&over);
        limiter.rejections.over_limit(tenant, &over, self.state.clock.now());
        if let (Limit::Samples, Some(bytes)) = (over.limit, announced) {
            limiter.densities.learn(tenant, bytes, over.asked);
        }
        match (over.limit, limiter.remaining_of(tenant, limits, over.limit.rate().unwrap_or(over.limit))) {
            (Limit::ConcurrentWrites | Limit::ConcurrentQueries, _) => {
                fields::of_places(answer.headers_mut(), &over);
            }
            (_, Some(remaining)) => fields::of_rate(answer.headers_mut(), &remaining, over.retry_after),
            (_, None) => {}
        }
        true
    }
}

impl Cost {
    /// The answer of one who is over a limit, as the protocol has it.
    fn refuse(self, over: OverLimit) -> Response {
        match self {
            Self::Write => write::over_limit(over),
            Self::Import => write::refuse(&over.into()),
            Self::Query => ApiError::from(over).into_response(),
        }
    }
}

impl Limiter {
    /// Whether there are samples left for a request that likely has so many.
    fn look_likely(&self, tenant: &TenantId, limits: &TenantLimits, likely: u64) -> Result<(), OverLimit> {
        // What never fits is refused when its size is known, not when it is guessed.
        let most = super::draw(limits, Limit::Samples, 0).map_or(1, |draw| draw.burst.max(1));
        self.look(tenant, limits, Limit::Samples, likely.min(most))
    }
}

/// A body that comes no faster than its tenant has bytes left.
fn metered(body: Body, state: &Arc<State>, tenant: &TenantId, limits: &Arc<TenantLimits>) -> Body {
    let (limiter, tenant, limits) = (Arc::clone(&state.limiter), tenant.clone(), Arc::clone(limits));
    let frames = body.into_data_stream();
    Body::from_stream(stream::unfold(Some((frames, limiter, tenant, limits)), async |rest| {
        let (mut frames, limiter, tenant, limits) = rest?;
        let frame = match frames.next().await? {
            Ok(frame) => frame,
            Err(error) => return Some((Err(std::io::Error::other(error)), None)),
        };
        match limiter.take_slowly(&tenant, &limits, Limit::Bytes, frame.len() as u64).await {
            Ok(()) => Some((Ok(frame), Some((frames, limiter, tenant, limits)))),
            Err(over) => Some((Err(std::io::Error::other(over)), None)),
        }
    }))
}

/// Holds what a request holds until its answer is sent, if that is a stream.
fn keep(answer: Response, held: Held) -> Response {
    if answer.body().size_hint().exact().is_some() {
        return answer;
    }
    answer.map(|body| Body::new(Streamed { body, _held: held }))
}

struct Streamed {
    body: Body,
    _held: Held,
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&self.body)
    }
}
