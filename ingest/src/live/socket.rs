//! The UDP port of all viewers: one socket for IPv4 and one for IPv6, on every interface.
//!
//! Every datagram comes with the local address that it was sent to, and leaves from the local
//! address that the viewer uses, so that machines with several interfaces work.

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Buffers of the sockets in the kernel (chosen: a key picture of 4K for each of 16 viewers). The
/// kernel may give less.
const KERNEL_BYTES: usize = 4 << 20;
/// Largest payload that one system call takes.
const SEGMENTS_BYTES: usize = 60_000;
/// Most addresses that a viewer is told (chosen: hosts of containers have hundreds).
const ADDRESSES_MAX: usize = 32;
/// Attempts to find a port that is free for both families.
const PORT_ATTEMPTS: usize = 8;
/// The kernel joins datagrams of one sender up to this (UDP_GRO); a smaller buffer would cut them.
const RECEIVE_BYTES: usize = 64 << 10;

/// One bound socket.
#[derive(Debug)]
pub struct Bound {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Bound {
    fn bind(address: SocketAddr) -> io::Result<Bound> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(family, SocketType::DGRAM, flags, None)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&fd, true)?;
        }
        bind(&fd, &address)?;
        let socket = UdpSocket::from(fd);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // Less is only less room for bursts.
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), KERNEL_BYTES);
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), KERNEL_BYTES);
        Ok(Bound { socket, state })
    }

    /// The socket, to wait for.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }
}

/// The port.
#[derive(Debug)]
pub struct Port {
    port: u16,
    sockets: Vec<Bound>,
    buffer: Vec<u8>,
}

/// A datagram that came.
#[derive(Debug)]
pub struct Received<'a> {
    /// From where.
    pub source: SocketAddr,
    /// To which address of this machine, when the kernel says.
    pub local: Option<IpAddr>,
    /// What.
    pub contents: &'a [u8],
}

impl Port {
    /// Binds `port` on every interface; 0 takes one that is free.
    ///
    /// # Errors
    /// When it is taken or forbidden for IPv4. Without IPv6 the port goes without.
    pub fn bind(port: u16) -> io::Result<Port> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let v4 = Bound::bind((Ipv4Addr::UNSPECIFIED, port).into())?;
            let bound = v4.socket.local_addr()?.port();
            let v6 = Bound::bind((Ipv6Addr::UNSPECIFIED, bound).into());
            let taken = v6.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::AddrInUse);
            if taken && port != 0 {
                let why = "taken for IPv6";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
            }
            if taken && attempt < PORT_ATTEMPTS {
                continue;
            }
            let sockets = [Some(v4), v6.ok()].into_iter().flatten().collect();
            return Ok(Port { port: bound, sockets, buffer: vec![0; RECEIVE_BYTES] });
        }
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.port
    }

    /// Its sockets.
    pub fn sockets(&self) -> &[Bound] {
        &self.sockets
    }

    /// Hands over what waits at socket `at`, up to one system call's worth; false when nothing
    /// waited.
    pub fn receive(&mut self, at: usize, mut each: impl FnMut(Received<'_>)) -> bool {
        let Some(bound) = self.sockets.get(at) else { return false };
        let mut meta = [RecvMeta::default()];
        let mut slices = [IoSliceMut::new(&mut self.buffer)];
        let reference = UdpSockRef::from(&bound.socket);
        // An error is one of an earlier datagram that could not be delivered, or nothing waits.
        let Ok(count) = bound.state.recv(reference, &mut slices, &mut meta) else { return false };
        for meta in &meta[..count] {
            let bytes = &self.buffer[..meta.len];
            for contents in bytes.chunks(meta.stride.max(1)) {
                each(Received { source: meta.addr, local: meta.dst_ip, contents });
            }
        }
        count > 0
    }

    /// The interfaces' addresses, loopback last. IPv6 addresses of one link only are left out:
    /// they mean nothing without the name of the link.
    pub fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        let v6 = self.sockets.iter().any(|b| matches!(b.socket.local_addr(), Ok(a) if a.is_ipv6()));
        let found: BTreeSet<_> = if_addrs::get_if_addrs()?
            .into_iter()
            .map(|interface| interface.ip())
            .filter(|ip| match ip {
                IpAddr::V4(_) => true,
                IpAddr::V6(ip) => v6 && !ip.is_unicast_link_local(),
            })
            .map(|ip| (ip.is_loopback(), ip))
            .collect();
        Ok(found.into_iter().map(|(_, ip)| ip).take(ADDRESSES_MAX).collect())
    }
}

/// Datagrams on their way out. Those that follow one another to the same viewer and have one size
/// leave in one system call.
#[derive(Debug, Default)]
pub struct Outgoing {
    destination: Option<(SocketAddr, Option<IpAddr>)>,
    size: usize,
    count: usize,
    ends: bool,
    bytes: Vec<u8>,
    /// Datagrams that the kernel did not take.
    pub refused: u64,
}

impl Outgoing {
    /// Adds one.
    pub fn push(&mut self, to: SocketAddr, from: Option<IpAddr>, contents: &[u8], port: &Port) {
        let fits = self.destination == Some((to, from))
            && !self.ends
            && contents.len() <= self.size
            && self.bytes.len() + contents.len() <= SEGMENTS_BYTES
            && port.socket_for(to).is_some_and(|b| self.count < b.state.max_gso_segments());
        if !fits {
            self.flush(port);
            self.destination = Some((to, from));
            self.size = contents.len();
        }
        self.ends = contents.len() < self.size;
        self.count += 1;
        self.bytes.extend(contents);
    }

    /// Sends what waits.
    pub fn flush(&mut self, port: &Port) {
        if let Some((destination, src_ip)) = self.destination.take()
            && let Some(bound) = port.socket_for(destination)
        {
            let segment_size = (self.count > 1).then_some(self.size);
            let contents = &self.bytes[..];
            let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip };
            let sent = bound.state.try_send(UdpSockRef::from(&bound.socket), &transmit);
            // A lost datagram: the viewer asks for it again.
            self.refused += if sent.is_err() { self.count as u64 } else { 0 };
        }
        (self.size, self.count, self.ends) = (0, 0, false);
        self.bytes.clear();
    }
}

impl Port {
    fn socket_for(&self, peer: SocketAddr) -> Option<&Bound> {
        let same =
            |b: &&Bound| matches!(b.socket.local_addr(), Ok(a) if a.is_ipv4() == peer.is_ipv4());
        self.sockets.iter().find(same)
    }
}
