//! What takes bytes from outside, as functions that a fuzzer feeds.
//!
//! A target panics where a promise is broken: a decoder panicked, what was accepted did not come
//! back byte for byte, or something verified that was never signed. `fuzz_smoke` runs each with
//! 10,000 mutations of its samples on every test run; `tests/fuzz` hands the same functions to
//! `cargo fuzz` for as long as one likes.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a finding here")]

use std::path::Path;

mod files;
mod policies;
mod proofs;
mod records;
mod samples;
mod settings;
mod texts;

/// A function that takes any bytes, and bytes that it accepts.
pub struct Target {
    /// The name of the fuzzer in `tests/fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Says whether the bytes were accepted. Panics when a promise is broken.
    pub run: fn(&[u8]) -> bool,
    /// Bytes that are accepted, to begin with.
    pub samples: fn() -> Vec<Vec<u8>>,
}

impl Target {
    /// The target with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Writes the samples into a folder, one a file, as a corpus to begin with.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn seed(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        for (number, sample) in (self.samples)().iter().enumerate() {
            use std::io::Write as _;
            let path = folder.join(format!("sample-{number}"));
            std::fs::File::create(path)?.write_all(sample)?;
        }
        Ok(())
    }
}

/// Runs a target once: the body of every fuzzer.
///
/// # Panics
///
/// When there is no target of this name, or a promise is broken.
pub fn run(name: &str, bytes: &[u8]) {
    let target = Target::named(name).unwrap();
    let _is_accepted = (target.run)(bytes);
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "entry", run: records::entry, samples: records::entries },
    Target { name: "event", run: records::event, samples: records::events },
    Target { name: "genesis", run: records::genesis, samples: records::genesis_contents },
    Target { name: "founding", run: records::founding, samples: records::genesis_events },
    Target { name: "registration", run: records::registration, samples: records::registrations },
    Target { name: "event_json", run: records::event_json, samples: records::event_jsons },
    Target { name: "note", run: texts::note, samples: texts::notes },
    Target { name: "checkpoint", run: texts::checkpoint, samples: texts::checkpoints },
    Target { name: "vkey", run: texts::vkey, samples: texts::vkeys },
    Target { name: "signer", run: texts::signer, samples: texts::signers },
    Target { name: "public_key", run: texts::public_key, samples: texts::public_keys },
    Target { name: "tlog_proof", run: proofs::tlog_proof, samples: proofs::tlog_proofs },
    Target { name: "receipt", run: proofs::receipt, samples: proofs::receipts },
    Target { name: "seal", run: proofs::seal, samples: proofs::seals },
    Target { name: "inclusion", run: proofs::inclusion, samples: proofs::inclusions },
    Target { name: "consistency", run: proofs::consistency, samples: proofs::consistencies },
    Target { name: "evidence", run: proofs::evidence, samples: proofs::evidences },
    Target { name: "cedar_policy", run: policies::cedar, samples: policies::cedars },
    Target { name: "trust_policy", run: policies::trust, samples: policies::trusts },
    Target { name: "witness_logs", run: policies::logs, samples: policies::log_lists },
    Target { name: "proposal", run: policies::proposal, samples: policies::proposals },
    Target { name: "add_checkpoint", run: files::add_checkpoint, samples: files::additions },
    Target { name: "witness_body", run: files::witness_body, samples: files::witness_bodies },
    Target { name: "segment", run: files::segment, samples: files::segments },
    Target { name: "frame", run: files::frame, samples: files::frames },
    Target { name: "copy", run: files::copy, samples: files::segments },
    Target { name: "meta", run: files::meta, samples: files::metas },
    Target { name: "view", run: files::view, samples: files::views },
    Target { name: "spool", run: files::spool, samples: files::spools },
    Target { name: "config", run: settings::config, samples: settings::files },
    Target { name: "principals", run: settings::door, samples: settings::principals },
];
