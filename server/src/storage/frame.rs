//! The frames of one group, on their way to the log. Their format is that of
//! [`access_ledger_proto::segment`].

use access_ledger_proto::{
    position::Index,
    segment::{FRAME_HEADER_LEN, Salt, State, encode_frame},
};

/// The frames of one group, encoded and ready to write.
///
/// Made by [`Log::group`](super::Log::group), filled entry by entry, consumed by
/// [`Log::commit`](super::Log::commit).
#[derive(Debug)]
pub struct GroupFrames {
    pub(crate) first: Index,
    pub(crate) salt: Salt,
    pub(crate) bytes: Vec<u8>,
    /// Start of each frame in `bytes`.
    pub(crate) starts: Vec<u32>,
}

impl GroupFrames {
    /// Most bytes of a group: what one sync may have to write, and what a segment may exceed its
    /// limit by. Offsets within segments stay far below 32 bits.
    pub const LEN_MAX: usize = 8 << 20;

    /// Adds the next entry and its event.
    ///
    /// # Panics
    ///
    /// When a length is outside the format (`Entry::LEN_MIN..=LEN_MAX`, `1..=EVENT_LEN_MAX`), or
    /// the group grows beyond [`GroupFrames::LEN_MAX`]: both are checked where batches are
    /// admitted.
    pub fn push(&mut self, entry: &[u8], event: &[u8]) {
        assert!(!event.is_empty(), "an event has at least one byte");
        self.push_frame(entry, State::Present, event);
    }

    /// Adds the next entry, whose event was erased where it comes from.
    ///
    /// # Panics
    ///
    /// As [`GroupFrames::push`].
    pub fn push_erased(&mut self, entry: &[u8]) {
        self.push_frame(entry, State::Erased, &[]);
    }

    fn push_frame(&mut self, entry: &[u8], state: State, event: &[u8]) {
        let frame_len = FRAME_HEADER_LEN + entry.len() + event.len();
        let start = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        assert!(self.bytes.len() + frame_len <= Self::LEN_MAX, "group over its limit");
        // The group's limit bounds how many frames it has.
        let group = u32::try_from(self.starts.len()).unwrap_or(u32::MAX);
        self.starts.push(start);
        encode_frame(&mut self.bytes, self.salt, group, entry, (state, event));
    }

    /// How many entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Bytes on disk, at most [`GroupFrames::LEN_MAX`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The index of the first entry.
    #[must_use]
    pub fn first(&self) -> Index {
        self.first
    }
}
