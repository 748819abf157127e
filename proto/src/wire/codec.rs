//! How messages get on the wire and off it: as protobuf, like tonic's own codec does it, but with
//! the memory for a message taken once.
//!
//! A run of entries has half a megabyte. A buffer that grows to that by doubling is copied and
//! cleared at every step, which was half the time that serving a follower took; and fields that are
//! split off a buffer which may still grow cost twice those that are slices of one message.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Encodes `T` and decodes `U`.
#[derive(Debug)]
pub(crate) struct MessageCodec<T, U> {
    messages: PhantomData<(T, U)>,
}

/// One direction of a [`MessageCodec`].
#[derive(Debug)]
pub(crate) struct OneWay<T> {
    message: PhantomData<T>,
}

impl<T, U> Default for MessageCodec<T, U> {
    fn default() -> Self {
        Self { messages: PhantomData }
    }
}

impl<T, U> Codec for MessageCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = OneWay<T>;
    type Decoder = OneWay<U>;

    fn encoder(&mut self) -> Self::Encoder {
        OneWay { message: PhantomData }
    }

    fn decoder(&mut self) -> Self::Decoder {
        OneWay { message: PhantomData }
    }
}

impl<T: Message> Encoder for OneWay<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl<T: Message + Default> Decoder for OneWay<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        let message = buffer.copy_to_bytes(buffer.remaining());
        // As tonic's own codec answers.
        T::decode(message).map(Some).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}
