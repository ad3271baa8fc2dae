//! The bytes of a scripted client, and the connection that brings them in scripted pieces.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::{Executor, Read, ReadBufCursor, Write};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A request as HTTP/1 text. The values are as they are: what breaks the syntax is for hyper to refuse.
pub fn http1(path: &str, cookies: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("GET {path} HTTP/1.1\r\nHost: x\r\n").into_bytes();
    for cookie in cookies {
        bytes.extend_from_slice(&[b"Cookie: ", &cookie[..], b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// A request as one HTTP/2 HEADERS frame, its fields as literals that are not indexed.
pub fn http2(stream: u32, path: &str, cookies: &[Vec<u8>]) -> Vec<u8> {
    let mut block = Vec::new();
    let fixed = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", path)];
    let cookies = cookies.iter().map(|value| ("cookie", &value[..]));
    for (name, value) in fixed.map(|(name, value)| (name, value.as_bytes())).into_iter().chain(cookies) {
        block.push(0);
        text(name.as_bytes(), &mut block);
        text(value, &mut block);
    }
    let length = u32::try_from(block.len()).unwrap().to_be_bytes();
    [&length[1..], &[1, 0b101], &stream.to_be_bytes(), &block].concat()
}

/// RFC 7541 section 5.2, without Huffman coding.
fn text(bytes: &[u8], out: &mut Vec<u8>) {
    match bytes.len().checked_sub(127) {
        None => out.push(bytes.len() as u8),
        Some(mut rest) => {
            out.push(127);
            while rest >= 128 {
                out.push(rest as u8 | 128);
                rest /= 128;
            }
            out.push(rest as u8);
        }
    }
    out.extend_from_slice(bytes);
}

/// The client's next step.
pub enum Next {
    Bytes(Vec<u8>),
    Wait,
    End,
}

/// The server's end of the connection. Where a script says 0, it waits; where it says more, that many bytes pass.
pub struct Wire<N> {
    pub next: N,
    pub reads: VecDeque<u8>,
    pub writes: VecDeque<u8>,
    /// Bytes of the client that are other than it meant: counted from the last one that is.
    pub noise: VecDeque<(u16, u8)>,
    pub ready: VecDeque<u8>,
    pub written: Rc<RefCell<Vec<u8>>>,
}

impl<N: FnMut() -> Next + Unpin> Read for Wire<N> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let most = match this.reads.pop_front() {
            Some(0) => {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(most) => usize::from(most),
            None => usize::MAX,
        };
        if this.ready.is_empty() {
            match (this.next)() {
                Next::Bytes(bytes) => this.ready.extend(bytes),
                Next::Wait => return Poll::Pending,
                Next::End => return Poll::Ready(Ok(())),
            }
        }
        for _ in 0..most.min(buffer.remaining()) {
            let Some(mut byte) = this.ready.pop_front() else { break };
            match this.noise.front_mut() {
                Some((0, mask)) => {
                    byte ^= *mask;
                    this.noise.pop_front();
                }
                Some((wait, _)) => *wait -= 1,
                None => {}
            }
            buffer.put_slice(&[byte]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<N: Unpin> Write for Wire<N> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let most = match this.writes.pop_front() {
            Some(0) => {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(most) => usize::from(most),
            None => usize::MAX,
        };
        let len = most.min(bytes.len());
        this.written.borrow_mut().extend_from_slice(&bytes[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Tasks that run when they are polled, on this thread.
#[derive(Clone, Default)]
pub struct Tasks(Rc<RefCell<Vec<Pin<Box<dyn Future<Output = ()>>>>>>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.0.borrow_mut().push(Box::pin(task));
    }
}

impl Tasks {
    pub fn poll(&self, context: &mut Context<'_>) {
        let mut tasks = std::mem::take(&mut *self.0.borrow_mut());
        tasks.retain_mut(|task| task.as_mut().poll(context).is_pending());
        self.0.borrow_mut().append(&mut tasks);
    }

    pub fn clear(&self) {
        let tasks = std::mem::take(&mut *self.0.borrow_mut());
        drop(tasks);
    }
}
