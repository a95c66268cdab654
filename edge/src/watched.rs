//! The socket of a client connection: the bytes that it reads and writes, one message after the other,
//! and what the [`Connection`] hears of them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::Connection;
use crate::frames::{Frames, Motion};
use crate::framing::{Follows, Framing};

/// A socket that notes what happens on it, and hands on one message after the other: what detection
/// has read, and what came behind the end of a message, waits.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    socket: S,
    /// Read already.
    ahead: Bytes,
    framing: Framing,
    /// Of interim responses what the socket has not taken yet.
    interim: Bytes,
    /// What came and what went, over HTTP/2.
    frames: Option<Box<[Frames; 2]>>,
    connection: Arc<Connection>,
}

impl<S> Watched<S> {
    pub(crate) fn new(socket: S, ahead: Bytes, connection: Arc<Connection>) -> Self {
        let is_http2 = connection.is_http2();
        let framing = if is_http2 { Framing::Opaque } else { Framing::new() };
        let frames = is_http2.then(|| Box::new([Frames::from_client(), Frames::default()]));
        Self { socket, ahead, framing, interim: Bytes::new(), frames, connection }
    }

    /// Takes note of what came.
    fn came(&mut self, bytes: &[u8]) {
        let motion = match self.frames.as_deref_mut() {
            None => Motion::of(bytes.len()),
            Some([came, _]) => came.motion(bytes),
        };
        self.connection.read_some(motion.moves);
    }

    /// Takes note of how far a write of these slices went.
    fn wrote(&mut self, slices: &[IoSlice<'_>], wrote: &Poll<io::Result<usize>>) {
        let on = match wrote {
            Poll::Pending => Poll::Pending,
            Poll::Ready(wrote) => {
                let bytes = wrote.as_ref().map_or(0, |bytes| *bytes);
                Poll::Ready(match self.frames.as_deref_mut() {
                    None => Motion::of(bytes),
                    Some([_, went]) => went.motion_of(slices, bytes),
                })
            }
        };
        self.connection.wrote(on);
    }

    /// Takes note of what follows the head that was handed on last. `false`: it is not known yet.
    fn settle(&mut self) -> io::Result<bool> {
        let is_asked = matches!(self.framing, Framing::Asked);
        match self.connection.follows() {
            Some(follows) if is_asked || follows == Follows::Tunnel => self.framing.settle(follows),
            // Who reads the heads and who finds their ends disagree.
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
            None => return Ok(!is_asked),
        }
        Ok(true)
    }

    /// How many of `bytes` may be handed on.
    fn pass(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let passed = self.framing.pass(bytes)?;
        if passed.bare_lf {
            self.connection.note_bare_lf();
        }
        Ok(passed.bytes)
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    /// Writes what is begun of interim responses to its end: nothing may come in between.
    fn poll_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let wrote = Pin::new(&mut self.socket).poll_write(context, &self.interim);
            self.wrote(&[], &wrote); // of HTTP/1: no frames
            match ready!(wrote)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.interim.advance(n),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.settle()? {
            return Poll::Pending; // whoever says what follows, reads on after it
        }
        if !self.ahead.is_empty() {
            let n = self.ahead.len().min(into.remaining());
            let now = self.ahead.slice(..n);
            let passed = self.pass(&now)?;
            let ahead = self.ahead.split_to(passed);
            into.put_slice(&ahead);
            self.came(&ahead);
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(context, into);
        let came = into.filled().get(before..).unwrap_or_default();
        if !came.is_empty() {
            self.came(came);
            let passed = self.pass(came)?;
            if let Some(rest @ [_, ..]) = came.get(passed..) {
                self.ahead = Bytes::copy_from_slice(rest);
                into.set_filled(before + passed);
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(context))?;
        let wrote = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.wrote(&[IoSlice::new(bytes)], &wrote);
        wrote
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(context))?;
        let wrote = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.wrote(slices, &wrote);
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// Whoever flushes has nothing left to write: here interim responses come in.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(context))?;
        self.interim = self.connection.interim.take().into();
        ready!(self.poll_interim(context))?;
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
