//! PowerDNS Recursor with two threads.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::extras::Extra;
use super::{Answer, Case, Expectation};
use crate::load::{Clients, authority, dns};
use crate::process::{self, Server};

/// CVE-2024-25590: answers with hundreds of records filled the cache.
#[derive(Debug, Default)]
pub(crate) struct Recursor {
    /// How many times the server was asked what the fix changed.
    probes: Cell<u32>,
}

const CLIENTS: usize = 4;

impl Case for Recursor {
    fn name(&self) -> &'static str {
        "pdnsrec-25590"
    }

    fn label(&self) -> &'static str {
        "CVE-2024-25590"
    }

    fn image(&self) -> &'static str {
        "pdns_recursor"
    }

    fn changed(&self) -> &'static [&'static str] {
        &[
            "serviceMain(int, char**, std::shared_ptr<Logr::Logger> const&).constprop.0",
            "MemRecursorCache::doDump(int, unsigned long)",
            "MemRecursorCache::get(long, DNSName const&, QType, unsigned char, std::vector<DNSRecord, std::allocator<DNSRecord> >*, ComboAddress const&, boost::optional<std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> > > const&, std::vector<std::shared_ptr<RRSIGRecordContent>, std::allocator<std::shared_ptr<RRSIGRecordContent> > >*, std::vector<std::shared_ptr<DNSRecord>, std::allocator<std::shared_ptr<DNSRecord> > >*, bool*, vState*, bool*, DNSName*, ComboAddress*)",
            "MemRecursorCache::replace(long, DNSName const&, QType, std::vector<DNSRecord, std::allocator<DNSRecord> > const&, std::vector<std::shared_ptr<RRSIGRecordContent>, std::allocator<std::shared_ptr<RRSIGRecordContent> > > const&, std::vector<std::shared_ptr<DNSRecord>, std::allocator<std::shared_ptr<DNSRecord> > > const&, bool, DNSName const&, boost::optional<Netmask>, boost::optional<std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> > > const&, vState, boost::optional<ComboAddress>, bool)",
            "MemRecursorCache::CacheEntry::CacheEntry(MemRecursorCache::CacheEntry const&)",
        ]
    }

    /// The class of an entry has a member more, and two source files are longer, so that
    /// what is inlined where was decided anew in all that include them.
    fn extras(&self) -> &'static [Extra] {
        const INLINED: &str = "other functions are inlined in it than before";
        &[
            ("main", INLINED),
            ("recursorThread", INLINED),
            ("NetmaskTree<SortListOrder, Netmask>::NetmaskTree", INLINED),
            ("void Logr::Logger::error", INLINED),
            ("MemRecursorCache::handleHit", INLINED),
            (
                "apiServerCacheFlush",
                "where an empty text ends is not known, and another text is behind it",
            ),
        ]
    }

    /// Each entry of the cache that the process already holds would need the flag.
    fn expectation(&self) -> Expectation {
        Expectation::Refused {
            rule: "R-LAYOUT",
            subject: "CacheEntry",
        }
    }

    fn start(&self, programs: &Path, run: &Path) -> Result<Server> {
        let port = process::free_port()?;
        let upstream = authority::start()?;
        let folder = run.display();
        std::fs::write(
            run.join("recursor.conf"),
            format!(
                "local-address=127.0.0.1\nlocal-port={port}\nforward-zones=corpus.test=127.0.0.1:{upstream}\n\
                 threads=2\ndnssec=off\nsocket-dir={folder}\ndaemon=no\ndisable-syslog=yes\nloglevel=3\n\
                 quiet=yes\nsecurity-poll-suffix=\nwebserver=no\ndisable-packetcache=yes\nallow-from=127.0.0.0/8\ndont-query=\n"
            ),
        )?;
        let mut command = Command::new(programs.join("pdns_recursor"));
        command.arg(format!("--config-dir={folder}"));
        Server::start(&mut command, port, &run.join("log"))
    }

    fn load(&self, port: u16, clients: &mut Clients) -> Result<()> {
        clients.start_many(CLIENTS, move |client, _| dns::work(client, port))
    }

    fn probe(&self, port: u16) -> Result<(Answer, String)> {
        let probe = self.probes.get();
        self.probes.set(probe + 1);
        let name = format!("big{probe}.corpus.test");
        // The second answer would come from the cache.
        dns::many_addresses(port, &name).context("the first answer")?;
        let addresses = dns::many_addresses(port, &name).context("the second answer")?;
        Ok(match addresses {
            Some(count) => (Answer::Old, format!("{count} addresses are kept")),
            None => (
                Answer::New,
                format!("{} addresses are too many", authority::MANY),
            ),
        })
    }

    fn requests(&self) -> u64 {
        20_000
    }
}
