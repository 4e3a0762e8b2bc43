// Package keyd runs an unmodified key daemon against Spigot instead of the
// kernel: `spigotctl keyd -- iked -d`, `spigotctl keyd -- charon-systemd`,
// `spigotctl keyd -- ip xfrm state`.
//
// A seccomp filter with user notification is put on a tiny process, which then
// becomes the daemon. One listener sees the few system calls that matter, of
// the daemon and of all its descendants, across fork, chroot and setuid:
//
//	daemon                      launcher (this package)             spigot
//	socket(AF_KEY)          ->  makes a pair of Unix sockets,
//	                            connects to the server          ->  a new client
//	    fd of one end       <-  keeps the other end
//	send(fd, ADD)           ->  reads the message               ->  acts
//	                            queues the reply in the pair    <-  reply
//	    returns             <-  answers the system call
//	recv(fd)                    (the kernel: nothing is notified)
//	    an event            <-  queues it in the pair           <-  ACQUIRE
//
// A kernel queues the reply to a PF_KEY message before send returns, and
// daemons count on it; so sends are notified and answered late. Everything else
// on the daemon's end is done by the kernel: poll, recv, close, passing it on.
//
// Clients are told apart by the inode of their socket, since daemons duplicate
// and pass descriptors. Processes of a foreign architecture (32-bit ones) are
// not seen: they talk to the kernel.
package keyd
