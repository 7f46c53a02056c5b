//! What goes wrong in a simulation, when, and for how long: all by the seed.
//!
//! Owns the schedule. Whatever it breaks it also mends; what is still broken at the end is mended by [`super::World::heal`].

use std::rc::Rc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio::task::spawn_local;
use tokio::time::{sleep, sleep_until};
use tracing::info;

use super::net::Weather;
use super::{BACKUP, JUST_NOW, World};

/// One thing that goes wrong. Hosts by their place in the world.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// A node's process is killed, or its machine vanishes.
    Kill { host: usize, silent: bool },
    /// A node is stopped as an operator does, and started again.
    Restart { host: usize },
    /// Nothing passes between two nodes.
    Cut { a: usize, b: usize },
    /// Nothing passes between a node and the registry.
    Away { host: usize },
    /// A node reaches nobody.
    Alone { host: usize },
    /// The registry is dead.
    RegistryDown,
    /// The registry hangs.
    RegistryStalls,
    /// The registry fails over and loses what was written last.
    RegistryForgets,
    /// The registry is restored from an older copy.
    RegistryRestored,
    /// A wall clock jumps.
    ClockStep { host: usize, ms: i64 },
    /// The network is bad.
    Weather(Weather),
}

fn any(chance: &mut StdRng, hosts: usize) -> Fault {
    let host = chance.random_range(0..hosts);
    match chance.random_range(0..16) {
        0..3 => Fault::Kill { host, silent: chance.random_bool(0.4) },
        3..5 => Fault::Restart { host },
        5..7 => Fault::Cut { a: host, b: (host + chance.random_range(1..hosts)) % hosts },
        7 => Fault::Away { host },
        8 => Fault::Alone { host },
        9..11 => Fault::RegistryDown,
        11 => Fault::RegistryStalls,
        12 => Fault::RegistryForgets,
        13 => Fault::RegistryRestored,
        14 => Fault::ClockStep { host, ms: chance.random_range(-4000..4000) },
        _ => Fault::Weather(Weather {
            delay: Duration::from_millis(chance.random_range(0..100)),
            jitter: Duration::from_millis(chance.random_range(1..50)),
            loss_per_mille: *[0, 10, 50, 100].choose(chance).unwrap_or(&0),
        }),
    }
}

/// Lets things go wrong until `until`.
pub(super) async fn run(world: Rc<World>, chance: &mut StdRng, until: tokio::time::Instant) {
    let count = chance.random_range(3..14);
    let begin = tokio::time::Instant::now();
    let span = until.saturating_duration_since(begin);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        let fault = any(chance, world.hosts.len());
        let at = begin + span.mul_f64(chance.random::<f64>() * 0.9);
        let lasts = Duration::from_millis(*[500, 2000, 4000, 8000, 15_000, 30_000].choose(chance).unwrap_or(&500));
        let world = Rc::clone(&world);
        // What is forgotten later is what was written since then.
        let copied = match fault {
            Fault::RegistryForgets => Some((JUST_NOW, Duration::from_millis(chance.random_range(0..1000)))),
            Fault::RegistryRestored => Some((BACKUP, Duration::from_millis(chance.random_range(1000..15_000)))),
            _ => None,
        };
        tasks.spawn_local(async move {
            if let Some((slot, before)) = copied {
                sleep_until(at.checked_sub(before).unwrap_or(begin)).await;
                world.server.keep(slot).await;
            }
            sleep_until(at).await;
            info!(?fault, ?lasts, "goes wrong");
            world.note("world", &format!("{fault:?} for {lasts:?}"));
            happen(&world, fault, lasts).await;
        });
    }
    sleep_until(until).await;
    tasks.shutdown().await;
}

async fn happen(world: &Rc<World>, fault: Fault, lasts: Duration) {
    let host = |at: usize| world.hosts.get(at);
    match fault {
        Fault::Kill { host: at, silent } => {
            let Some(host) = host(at) else { return };
            host.kill(world, silent);
            sleep(lasts).await;
            host.start(world);
        }
        Fault::Restart { host: at } => {
            let Some(host) = host(at) else { return };
            // Once begun it ends, also past the time of trouble.
            let stopping = Rc::clone(world);
            let stopped = spawn_local(async move {
                if let Some(host) = stopping.hosts.get(at) {
                    host.stop().await;
                }
            });
            let _ = stopped.await;
            sleep(lasts).await;
            host.start(world);
        }
        Fault::Cut { a, b } => {
            let (Some(a), Some(b)) = (host(a), host(b)) else { return };
            world.network.cut(a.address, b.address);
            sleep(lasts).await;
            world.network.mend(a.address, b.address);
        }
        Fault::Away { host: at } => {
            let Some(host) = host(at) else { return };
            world.network.cut(host.address, world.registry_address);
            sleep(lasts).await;
            world.network.mend(host.address, world.registry_address);
        }
        Fault::Alone { host: at } => {
            let Some(host) = host(at) else { return };
            let others = || world.hosts.iter().map(|h| h.address).chain([world.registry_address]);
            others().filter(|other| *other != host.address).for_each(|other| world.network.cut(host.address, other));
            sleep(lasts).await;
            others().for_each(|other| world.network.mend(host.address, other));
        }
        Fault::RegistryDown => {
            world.server.stop();
            sleep(lasts).await;
            world.server.start();
        }
        Fault::RegistryStalls => world.server.stall(lasts.min(Duration::from_secs(8))),
        Fault::RegistryForgets => {
            world.server.stop();
            sleep(lasts.min(Duration::from_secs(5))).await;
            world.server.forget_since(JUST_NOW).await;
            world.server.start();
        }
        Fault::RegistryRestored => world.server.forget_since(BACKUP).await,
        Fault::ClockStep { host: at, ms } => {
            if let Some(host) = host(at) {
                host.step_clock(ms);
            }
        }
        Fault::Weather(weather) => {
            world.network.set_weather(weather);
            sleep(lasts).await;
            world.network.set_weather(Weather::default());
        }
    }
}
