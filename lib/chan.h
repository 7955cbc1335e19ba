/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's end of the channel to a mounted file system: find it, send a
 * message, receive one.  Blocking or not as the caller set the descriptor.
 */
#ifndef LIB_CHAN_H
#define LIB_CHAN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <intermezzo/channel.h>

/*
 * Connect to the channel of the file system mounted at dir.  Returns a
 * descriptor (close-on-exec) or -errno: -ENOTTY if dir is no mounted fileset,
 * -ECONNREFUSED if the file system is gone, -EBUSY if another daemon has it.
 */
int chan_open(const char *dir);

/*
 * Send one message: header and body.  0 or -errno (-EAGAIN on a full,
 * non-blocking channel; nothing was sent then).
 */
int chan_send(int fd, unsigned int type, unsigned int flags, uint64_t id,
	      const void *body, size_t body_len);

/*
 * Receive one message into buf (IZO_MSG_MAX bytes).  Returns its length, 0 at
 * the end, or -errno.  A descriptor that came with it is stored in *ret_fd
 * (-1: none; the caller's to close).  The header has been checked.
 */
ssize_t chan_recv(int fd, void *buf, size_t size, int *ret_fd);

/*
 * One request and its reply on a blocking channel with nothing else in flight.
 * Returns the length of the reply's body in ret_body or -errno, the reply's
 * error included.
 */
ssize_t chan_call(int fd, unsigned int type, unsigned int flags,
		  const void *body, size_t body_len,
		  void *ret_body, size_t size, int *ret_fd);

#endif
