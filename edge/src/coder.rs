//! How a site's responses are put into content codings: which of them, into which, how hard; and
//! the work itself.
//!
//! Knows neither clients nor the store. Nothing here decodes: what an origin has coded is passed on
//! as it is, and the unencoded form of what is coded here stays stored beside it.

use std::io::{self, Write};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use meridian_config::edge::Site as SiteConfig;
use meridian_config::edge::compression::Coding as Configured;
use meridian_config::media::MediaPattern;
use meridian_edge_rules::coding::Coding;
use meridian_edge_rules::derived::transformable;

/// What brotli may look back over: 4 MiB, the most that it takes at these levels.
const BROTLI_WINDOW: i32 = 22;
/// What brotli's writer gathers before it goes on.
const BROTLI_BUFFER: usize = 4_096;

/// A coded body that saves less than this part of the unencoded one is not worth its memory.
const LEAST_SAVING: u64 = 20;

/// What is coded for a site, and how.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// In order of preference; at least one.
    pub(crate) codings: Box<[Coding]>,
    pub(crate) levels: Levels,
    types: Box<[MediaPattern]>,
    min_size: u64,
    max_size: u64,
}

impl Plan {
    /// `None`: the site's responses stay as they are.
    pub(crate) fn of(site: &SiteConfig) -> Option<Self> {
        let config = &site.compression;
        let coding = |configured: &Configured| match configured {
            Configured::Gzip => Coding::Gzip,
            Configured::Br => Coding::Br,
            Configured::Zstd => Coding::Zstd,
        };
        let codings: Box<[Coding]> = site.codings().iter().map(coding).collect();
        (!codings.is_empty()).then(|| Self {
            codings,
            levels: Levels {
                gzip: config.gzip_level,
                br: config.br_level,
                zstd: config.zstd_level,
            },
            types: config.types.clone().into(),
            min_size: config.min_size.get(),
            max_size: config.max_size.get(),
        })
    }

    /// Whether it concerns a response with these fields. Of an unknown length: it may.
    pub(crate) fn concerns(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        length: Option<u64>,
    ) -> bool {
        length.is_none_or(|length| (self.min_size..=self.max_size).contains(&length))
            && transformable(status, headers)
                .is_some_and(|essence| self.types.iter().any(|pattern| pattern.matches(&essence)))
    }
}

/// How hard to try, by coding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Levels {
    pub(crate) gzip: u8,
    pub(crate) br: u8,
    pub(crate) zstd: u8,
}

/// Why there is no coded body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    #[error("the coded body saves nothing")]
    Useless,
    #[error("given up")]
    GivenUp,
    #[error("the encoder failed")]
    Encoder(#[from] io::Error),
}

/// Puts `pieces` into `coding`. `goes_on` is asked between them.
///
/// # Errors
/// When it saves nothing, is given up, or an encoder fails.
pub(crate) fn encode(
    coding: Coding,
    levels: Levels,
    pieces: &[Bytes],
    goes_on: impl Fn() -> bool,
) -> Result<Bytes, EncodeError> {
    let length: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
    let most = length - length.div_ceil(LEAST_SAVING).min(length);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut out = Bounded { bytes: Vec::new(), most };
    let fed = match coding {
        Coding::Gzip => {
            let level = flate2::Compression::new(levels.gzip.into());
            let mut encoder = flate2::write::GzEncoder::new(&mut out, level);
            feed(&mut encoder, pieces, goes_on).and_then(|()| Ok(encoder.try_finish()?))
        }
        Coding::Br => {
            let params = brotli::enc::BrotliEncoderParams {
                quality: levels.br.into(),
                lgwin: BROTLI_WINDOW,
                size_hint: usize::try_from(length).unwrap_or(usize::MAX),
                ..Default::default()
            };
            let mut encoder =
                brotli::CompressorWriter::with_params(&mut out, BROTLI_BUFFER, &params);
            feed(&mut encoder, pieces, goes_on).map(|()| {
                let _out = encoder.into_inner(); // writes what is left
            })
        }
        Coding::Zstd => zstd::stream::write::Encoder::new(&mut out, levels.zstd.into())
            .map_err(EncodeError::from)
            .and_then(|mut encoder| {
                encoder.set_pledged_src_size(Some(length))?;
                feed(&mut encoder, pieces, goes_on)?;
                encoder.finish()?;
                Ok(())
            }),
    };
    // An encoder that could not write all, whatever it made of that, has made too much.
    if out.bytes.len() > out.most {
        return Err(EncodeError::Useless);
    }
    fed.map(|()| out.bytes.into())
}

fn feed(
    encoder: &mut impl Write,
    pieces: &[Bytes],
    goes_on: impl Fn() -> bool,
) -> Result<(), EncodeError> {
    for piece in pieces {
        if !goes_on() {
            return Err(EncodeError::GivenUp);
        }
        encoder.write_all(piece)?;
    }
    Ok(())
}

/// Takes up to `most` bytes and one more, by which it is known that there would be more.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Bounded {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        let room = (self.most + 1).saturating_sub(self.bytes.len());
        if room == 0 && !part.is_empty() {
            return Err(io::Error::other("the coded body saves nothing"));
        }
        let fitting = part.get(..room.min(part.len())).unwrap_or_default();
        self.bytes.extend_from_slice(fitting);
        Ok(fitting.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    const LEVELS: Levels = Levels { gzip: 6, br: 5, zstd: 7 };

    fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap(),
            Coding::Br => brotli::Decompressor::new(bytes, 4_096).read_to_end(&mut out).unwrap(),
            Coding::Zstd => zstd::stream::read::Decoder::new(bytes)
                .and_then(|mut decoder| decoder.read_to_end(&mut out))
                .unwrap(),
        };
        out
    }

    /// Words of few letters, so that there is something to save, cut into pieces anywhere.
    fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let text = proptest::collection::vec(0..4_u8, 0..3_000);
        let noise = proptest::collection::vec(any::<u8>(), 0..300);
        proptest::collection::vec(prop_oneof![text, noise], 0..12)
    }

    proptest! {
        #[test]
        fn what_is_coded_decodes_to_the_very_bytes(
            pieces in pieces(),
            (gzip, br, zstd) in (1..=9_u8, 0..=9_u8, 1..=19_u8),
        ) {
            let whole = pieces.concat();
            let pieces: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
            for coding in Coding::ALL {
                match encode(coding, Levels { gzip, br, zstd }, &pieces, || true) {
                    Ok(coded) => {
                        prop_assert!(coded.len() < whole.len());
                        prop_assert_eq!(decoded(coding, &coded), &*whole, "{:?}", coding);
                    }
                    Err(EncodeError::Useless) => {}
                    Err(error) => prop_assert!(false, "{coding:?}: {error}"),
                }
            }
        }
    }

    #[test]
    fn text_of_many_pieces_is_worth_it_and_noise_is_not() {
        let text: Vec<Bytes> =
            (0..300).map(|n| Bytes::from(format!("<li>item {n}</li>\n").repeat(500))).collect();
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..200_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_be_bytes()[0]
            })
            .collect();
        for coding in Coding::ALL {
            let coded = encode(coding, LEVELS, &text, || true).unwrap();
            assert_eq!(decoded(coding, &coded), text.concat(), "{coding:?}");
            let noise = encode(coding, LEVELS, &[noise.clone().into()], || true);
            assert!(matches!(noise, Err(EncodeError::Useless)), "{coding:?}");
            let empty = encode(coding, LEVELS, &[], || true);
            assert!(matches!(empty, Err(EncodeError::Useless)), "{coding:?}");
            let stopped = encode(coding, LEVELS, &text, || false);
            assert!(matches!(stopped, Err(EncodeError::GivenUp)), "{coding:?}");
        }
    }
}
