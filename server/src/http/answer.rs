//! An answer to a read: type, cache headers, entity tag, and gzip where it is asked for.

use std::io::Read as _;

use access_ledger_proto::hash::sha256;
use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
        header::{
            ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
            RETRY_AFTER, VARY,
        },
    },
};
use bytes::Bytes;
use flate2::{Compression, bufread::GzEncoder};

/// Something to read.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) bytes: Bytes,
    pub(super) content_type: &'static str,
    /// Whether these bytes are all that the path will ever give.
    pub(super) is_immutable: bool,
    /// Whether gzip is worth its while.
    pub(super) is_compressible: bool,
}

/// What the reader asked for besides the path.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    takes_gzip: bool,
    /// The value of `If-None-Match`.
    known: Option<HeaderValue>,
}

impl Wishes {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let encodings = headers.get_all(ACCEPT_ENCODING);
        let mut encodings = encodings.iter().filter_map(|value| value.to_str().ok());
        let takes_gzip = encodings.any(|value| value.split(',').any(is_gzip));
        Self { takes_gzip, known: headers.get(IF_NONE_MATCH).cloned() }
    }

    fn knows(&self, tag: &str) -> bool {
        let known = self.known.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        // Compared weakly, as RFC 9110 asks for.
        known
            .split(',')
            .map(str::trim)
            .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
    }
}

/// Compresses, so it is nothing for a network thread.
pub(super) fn answer(resource: Resource, wishes: &Wishes) -> Response<Body> {
    let cache = if resource.is_immutable { IMMUTABLE } else { "no-cache" };
    let mut headers = vec![(CACHE_CONTROL, cache)];
    if resource.is_compressible {
        headers.push((VARY, "accept-encoding"));
    }
    let gzip = resource.is_compressible && wishes.takes_gzip;
    let tag = tag(&resource.bytes, gzip);
    if wishes.knows(&tag) {
        return with_tag(response(StatusCode::NOT_MODIFIED, &headers, Bytes::new()), &tag);
    }
    headers.push((CONTENT_TYPE, resource.content_type));
    let mut bytes = resource.bytes;
    if gzip {
        headers.push((CONTENT_ENCODING, "gzip"));
        bytes = compressed(&bytes);
    }
    with_tag(response(StatusCode::OK, &headers, bytes), &tag)
}

/// A line of text that says why there is nothing else. It may be otherwise the next time.
pub(super) fn refuse(status: StatusCode, problem: &str) -> Response<Body> {
    let mut headers = vec![(CACHE_CONTROL, "no-cache"), (CONTENT_TYPE, TEXT)];
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.push((RETRY_AFTER, "1"));
    }
    response(status, &headers, Bytes::from(format!("{problem}\n")))
}

/// A response of these parts.
pub(super) fn response(
    status: StatusCode,
    headers: &[(HeaderName, &'static str)],
    bytes: Bytes,
) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn with_tag(mut response: Response<Body>, tag: &str) -> Response<Body> {
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// The entity tag of these bytes; that of their compressed form is another.
fn tag(bytes: &[u8], gzip: bool) -> String {
    let digest = sha256(bytes).to_string();
    let start = digest.get(..TAG_DIGITS).unwrap_or_default();
    format!("\"{start}{}\"", if gzip { "-gzip" } else { "" })
}

fn compressed(bytes: &[u8]) -> Bytes {
    // Entries are hashes for the most part: trying harder gains nothing.
    let mut encoder = GzEncoder::new(bytes, Compression::fast());
    let mut compressed = Vec::with_capacity(bytes.len());
    // Neither reading from memory nor writing to it fails.
    let _infallible = encoder.read_to_end(&mut compressed);
    compressed.into()
}

/// Whether an element of `Accept-Encoding` lets gzip be used.
fn is_gzip(element: &str) -> bool {
    let mut parts = element.split(';').map(str::trim);
    let coding = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=")).unwrap_or("1");
    coding.eq_ignore_ascii_case("gzip") && weight.parse::<f32>().is_ok_and(|weight| weight > 0.0)
}

/// A year is for ever.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// The type of what people read.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// 128 bits of a digest: nobody finds two contents of one tag.
const TAG_DIGITS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(headers: &[(HeaderName, &'static str)]) -> Wishes {
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        Wishes::of(&headers.collect())
    }

    #[test]
    fn gzip_is_used_only_where_it_is_wanted() {
        for (header, wanted) in [
            ("gzip", true),
            ("br, GZIP", true),
            ("deflate,gzip;q=0.5", true),
            ("gzip; q=1", true),
            ("", false),
            ("br", false),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("x-gzipped", false),
            ("identity", false),
            ("gzip;q=x", false),
        ] {
            assert_eq!(wishes(&[(ACCEPT_ENCODING, header)]).takes_gzip, wanted, "{header:?}");
        }
    }

    #[test]
    fn a_known_tag_saves_the_body_and_each_encoding_has_its_own() {
        let resource = || Resource {
            bytes: Bytes::from_static(b"content"),
            content_type: TEXT,
            is_immutable: true,
            is_compressible: true,
        };
        let (plain, zipped) = (tag(b"content", false), tag(b"content", true));
        assert_ne!(plain, zipped);
        let plain: &'static str = plain.leak();
        for (known, status) in [
            (plain, 304),
            ("*", 304),
            ("\"other\"", 200),
            (plain.trim_matches('"'), 200),
            (zipped.clone().leak(), 200),
            (format!("\"a\", W/{plain}").leak(), 304),
        ] {
            let answer = answer(resource(), &wishes(&[(IF_NONE_MATCH, known)]));
            assert_eq!(answer.status(), status, "{known}");
            assert_eq!(answer.headers()[ETAG], plain);
            assert_eq!(answer.headers()[CACHE_CONTROL], IMMUTABLE);
            assert_eq!(answer.headers()[VARY], "accept-encoding");
        }
        let answer = answer(resource(), &wishes(&[(ACCEPT_ENCODING, "gzip")]));
        assert_eq!(answer.headers()[ETAG], zipped.as_str());
        assert_eq!(answer.headers()[CONTENT_ENCODING], "gzip");
    }
}
