//! Putting the server together, running it, stopping it.

use std::{
    net::TcpListener,
    path::PathBuf,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use actix_web::{App, HttpServer, dev::Server, middleware::from_fn, web};
use anyhow::Context as _;
use mdm_core::{Clock, Entropy, OsEntropy, SystemClock, devices::CheckinPace, ids::NodeId};
use mdm_events::bus::{self, Bus};
use mdm_service::{
    Services,
    installation::{self, FirstStart, FirstStarted},
    licenses::LicensePublicKey,
    nodes::ThisNode,
    observer::ServiceObserver,
    services::Parts,
    stream::{BusFeed, EventStream, EventWake, Lead, StreamParts},
    tokens::AccessTokens,
};
use mdm_store::{PgPool, migrations};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use secrecy::ExposeSecret as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    app,
    config::Settings,
    database::Database,
    idempotency,
    live::{self, Authenticate, LiveConfig, LiveParts, LiveState, SeatLimits},
    secret_key,
    state::AppState,
    storage, trace,
    webhook_sender::WebhookSender,
};

/// How long requests that are being answered may take at the end.
const DRAIN_SECONDS: u64 = 3;

/// A server that is ready to run.
pub struct Application {
    server: Server,
    url: String,
    state: web::Data<AppState>,
    tasks: JoinSet<()>,
    tasks_stop: CancellationToken,
    database: Database,
    first: Option<FirstStarted>,
}

impl Application {
    /// Opens the database, migrates it, makes what a first start makes, and binds the address.
    pub async fn build(settings: Settings) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&settings.data_dir).with_context(|| {
            format!(
                "the data directory {} cannot be made",
                settings.data_dir.display()
            )
        })?;
        // Before the database is started: a taken address is the commonest mistake.
        let listener = bind(&settings.listen)?;
        let database = Database::open(&settings).await?;
        match Self::assemble(settings, listener, &database).await {
            Ok((server, url, state, tasks, tasks_stop, first)) => Ok(Self {
                server,
                url,
                state,
                tasks,
                tasks_stop,
                database,
                first,
            }),
            Err(error) => {
                database.close().await;
                Err(error)
            }
        }
    }

    async fn assemble(
        settings: Settings,
        listener: TcpListener,
        database: &Database,
    ) -> anyhow::Result<Assembled> {
        let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) =
            (Arc::new(SystemClock), Arc::new(OsEntropy));
        let pool = database.pool.clone();
        migrations::run(&pool).await?;
        let secret_key = secret_key::load(&settings, entropy.as_ref())?;
        let first = FirstStart {
            admin_email: settings.admin_email.clone(),
            admin_password: settings.admin_password.clone(),
        };
        let first = installation::prepare(
            &pool,
            clock.as_ref(),
            Arc::clone(&entropy),
            &secret_key,
            first,
        )
        .await?;
        let sealing = Arc::new(secret_key);
        let tokens = Arc::new(
            AccessTokens::load(pool.clone(), Arc::clone(&sealing), Arc::clone(&clock)).await?,
        );
        let secret_key = Arc::clone(&sealing);
        let (wake, lead) = (EventWake::default(), Lead::default());
        let (bus, bus_events, bus_tasks) = connect_bus(&settings, &pool).await?;
        let node = ThisNode {
            id: NodeId::new(clock.as_ref(), entropy.as_ref()),
            version: env!("CARGO_PKG_VERSION"),
            started_at: clock.now(),
        };
        let services = Services::new(Parts {
            pool: pool.clone(),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            node,
            bus: bus.clone(),
            webhooks: Arc::new(WebhookSender::new(settings.webhook_allow_private)?),
            wake: wake.clone(),
            lead: lead.clone(),
            tokens: Arc::clone(&tokens),
            pace: CheckinPace::every(settings.checkin_interval_seconds),
            secret_key,
            packages: storage::packages(&settings)?,
            license_keys: license_keys(&settings)?,
        });
        services.announce_node().await?;
        let stream = EventStream::start(StreamParts {
            pool: pool.clone(),
            wake,
            lead: lead.clone(),
            bus: bus_events,
            clock: Arc::clone(&clock),
            observers: vec![Box::new(ServiceObserver::new(services.clone()))],
            keep: Duration::from_hours(24 * settings.event_retention_days.unsigned_abs()),
        })
        .await?;
        // Sessions that ended between the first reading and the stream's start.
        tokens.reload().await?;
        let stopping = CancellationToken::new();
        let nodes = services.clone();
        let live = LiveState::new(LiveParts {
            pool,
            feed: stream.feed(),
            tokens: Arc::new(services.clone()) as Arc<dyn Authenticate>,
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            lead,
            nodes: Box::new(move |subscribers| nodes.nodes(subscribers)),
            stopping: stopping.clone(),
            config: live_config(&settings),
        });
        let state = web::Data::new(AppState {
            services: services.clone(),
            live,
            stopping,
            heartbeat_seconds: settings.heartbeat_seconds,
            data_dir: settings.data_dir.clone(),
            metrics_token: settings.metrics_token.clone(),
            metrics: metrics_recorder()?,
            clock,
            entropy,
            examples: AtomicBool::new(false),
        });
        let tasks_stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(stream.run(tasks_stop.clone()));
        tasks.spawn(services.clone().run_presence(tasks_stop.clone()));
        tasks.spawn(services.clone().run_expiry(tasks_stop.clone()));
        let live = state.live.clone();
        let subscribers = move || live.counters().connected();
        tasks.spawn(services.clone().run_nodes(subscribers, tasks_stop.clone()));
        if let (Some(bus), Some(ends)) = (bus, bus_tasks) {
            tasks.spawn(run_bus(bus, ends, &services, tasks_stop.clone()));
        }
        tasks.spawn(services.clone().run_webhooks(tasks_stop.clone()));
        tasks.spawn(services.run_upkeep(tasks_stop.clone()));
        tasks.spawn(tokens.run_reload(tasks_stop.clone()));
        let url = format!("http://{}", listener.local_addr()?);
        let server = http_server(&settings, listener, state.clone())?;
        Ok((server, url, state, tasks, tasks_stop, first))
    }

    /// Where the server answers, such as `http://127.0.0.1:8081`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What the first start made, if this is the first start.
    pub const fn first_started(&self) -> Option<&FirstStarted> {
        self.first.as_ref()
    }

    /// What the handlers share.
    pub const fn state(&self) -> &web::Data<AppState> {
        &self.state
    }

    /// Where the database keeps its data, if it is the server's own.
    pub fn database_location(&self) -> Option<PathBuf> {
        self.database.location().map(std::path::Path::to_path_buf)
    }

    /// Serves until `stop` is cancelled, then closes the sockets, finishes what is being answered,
    /// writes what is in memory and stops the database.
    pub async fn run(mut self, stop: CancellationToken) -> std::io::Result<()> {
        let handle = self.server.handle();
        let mut serving = std::pin::pin!(self.server);
        let ended = tokio::select! {
            ended = &mut serving => ended,
            () = stop.cancelled() => {
                tracing::info!("stopping");
                self.state.stopping.cancel();
                self.state.live.drain().await;
                // The server has to be polled to do what its handle asks for.
                let stopped = async { tokio::join!(handle.stop(true), &mut serving) };
                let _drained = tokio::time::timeout(Duration::from_secs(DRAIN_SECONDS + 1), stopped).await;
                Ok(())
            }
        };
        self.state.stopping.cancel();
        self.tasks_stop.cancel();
        let all_ended = async { while self.tasks.join_next().await.is_some() {} };
        let _cut_off = tokio::time::timeout(Duration::from_secs(1), all_ended).await;
        self.tasks.abort_all();
        self.database.close().await;
        tracing::info!("stopped");
        ended
    }
}

type Assembled = (
    Server,
    String,
    web::Data<AppState>,
    JoinSet<()>,
    CancellationToken,
    Option<FirstStarted>,
);

fn bind(address: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| {
        format!(
            "cannot listen on {address} (--listen, MDM_LISTEN): is another server running there?"
        )
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn http_server(
    settings: &Settings,
    listener: TcpListener,
    state: web::Data<AppState>,
) -> anyhow::Result<Server> {
    let workers = match settings.workers {
        0 => std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get),
        number => number,
    };
    let per_worker = settings.connections.div_ceil(workers);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .app_data(state.live.worker())
            .wrap(from_fn(idempotency::once))
            .wrap(from_fn(trace::trace_request))
            .configure(app::configure)
    })
    .workers(workers)
    .max_connections(per_worker)
    .backlog(4096)
    .tcp_nodelay(true)
    .h1_allow_half_closed(false)
    .client_request_timeout(Duration::from_secs(15))
    .keep_alive(Duration::from_secs(75))
    .on_connect(live::on_connect)
    .shutdown_timeout(DRAIN_SECONDS)
    .disable_signals()
    .listen(listener)?;
    Ok(server.run())
}

type BusParts = (Option<Bus>, Option<BusFeed>, Option<bus::Tasks>);

async fn connect_bus(settings: &Settings, pool: &PgPool) -> anyhow::Result<BusParts> {
    let Some(url) = &settings.nats_url else {
        return Ok((None, None, None));
    };
    let stream = mdm_store::events::stream_id(pool).await?;
    let connected = Bus::connect(url.expose_secret(), stream).await;
    let (bus, ends) = connected.context("nats_url (MDM_NATS_URL)")?;
    let (events, tasks) = ends.split();
    let feed = BusFeed {
        bus: bus.clone(),
        events,
    };
    Ok((Some(bus), Some(feed), Some(tasks)))
}

/// Carries events and wake-ups between the nodes until told to stop.
fn run_bus(
    bus: Bus,
    ends: bus::Tasks,
    services: &Services,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let channels = Arc::clone(services.channels());
    let wake = move |organization, device| channels.wake(organization, device);
    bus.run(ends, wake, stop)
}

fn license_keys(settings: &Settings) -> anyhow::Result<Vec<LicensePublicKey>> {
    let keys = settings.license_public_keys.iter();
    keys.map(|text| {
        LicensePublicKey::parse(text)
            .with_context(|| format!("license_public_keys (MDM_LICENSE_PUBLIC_KEYS): {text:?}"))
    })
    .collect()
}

fn live_config(settings: &Settings) -> LiveConfig {
    LiveConfig {
        allowed_origins: settings.allowed_origins.clone(),
        seats: SeatLimits {
            per_user: settings.event_connections_per_user,
            per_address: settings.event_connections_per_address,
        },
        ..LiveConfig::default()
    }
}

/// One recorder for the process: tests run several servers in one.
fn metrics_recorder() -> anyhow::Result<PrometheusHandle> {
    static RECORDER: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    let installed = RECORDER.get_or_init(|| {
        let buckets = [
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
        ];
        let builder = PrometheusBuilder::new()
            .set_buckets(&buckets)
            .map_err(|error| error.to_string())?;
        builder
            .install_recorder()
            .map_err(|error| error.to_string())
    });
    installed.clone().map_err(anyhow::Error::msg)
}
