// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The KML's file: its header, its end, and giving back its front.
 */
#include "journal.h"

#include <linux/falloc.h>
#include <linux/mm.h>

#include "../lib/byteorder.h"
#include "../lib/crc32c.h"

/* Signals cannot be met here but in PUNCH, where a short write is an error. */
int izo_pread(struct file *f, void *buf, size_t len, u64 off)
{
	loff_t pos = off;
	ssize_t n;

	while (len) {
		n = kernel_read(f, buf, len, &pos);
		if (n < 0)
			return n;
		if (n == 0)
			return -ENODATA;
		buf += n;
		len -= n;
	}
	return 0;
}

int izo_pwrite(struct file *f, const void *buf, size_t len, u64 off)
{
	loff_t pos = off;
	ssize_t n;

	while (len) {
		n = kernel_write(f, buf, len, &pos);
		if (n < 0)
			return n;
		if (n == 0)
			return -EIO;
		buf += n;
		len -= n;
	}
	return 0;
}

/* The header */

static u32 header_crc(const struct kml_header *h)
{
	struct kml_header copy = *h;

	copy.crc = 0;
	return izo_crc32c(0, &copy, sizeof(copy));
}

static int header_check(const struct kml_header *h)
{
	if (memcmp(h->magic, KML_MAGIC, sizeof(h->magic)) != 0 ||
	    le32_to_cpu(h->crc) != header_crc(h))
		return -EBADMSG;
	if (le32_to_cpu(h->version) != KML_VERSION || h->flags)
		return -EPROTONOSUPPORT;
	if (le64_to_cpu(h->first_offset) < KML_HEADER_SIZE || !h->first_recno)
		return -EBADMSG;
	return 0;
}

static int read_header(struct izo_journal *j, struct kml_header *h)
{
	int err = izo_pread(j->kml, h, sizeof(*h), 0);

	if (!err)
		err = header_check(h);
	if (err)
		return err;
	memcpy(j->fileset_uuid, h->fileset_uuid, 16);
	memcpy(j->replica_uuid, h->replica_uuid, 16);
	j->epoch = le64_to_cpu(h->epoch);
	j->first_offset = le64_to_cpu(h->first_offset);
	j->first_recno = le64_to_cpu(h->first_recno);
	return 0;
}

int izo_kml_open(struct izo_journal *j, struct fs_context *fc)
{
	struct dentry *d = izo_meta_lookup(j->sbi->meta, "kml");
	struct kml_header h;
	struct file *f;
	int err;

	if (IS_ERR(d)) {
		errorfc(fc, "the fileset %s has no kml", j->sbi->params.fileset);
		return PTR_ERR(d);
	}
	f = izo_meta_open(j->sbi, d, O_RDWR);
	dput(d);
	if (IS_ERR(f))
		return PTR_ERR(f);
	j->kml = f;
	/* one mount at a time; mkizofs and the mount helper ask for it, too */
	err = izo_flock(f);
	if (err) {
		errorfc(fc, "the fileset %s is mounted already", j->sbi->params.fileset);
		return -EBUSY;
	}
	err = read_header(j, &h);
	if (err)
		errorfc(fc, "its kml cannot be used: error %d", err);
	return err;
}

/* The end */

/* The whole record at off: its length, 0 if there is none, -errno. */
static ssize_t record_at(struct izo_journal *j, void *buf, u64 off, struct kml_record *r)
{
	const loff_t size = i_size_read(file_inode(j->kml));
	size_t len;
	ssize_t n;
	int err;

	if (off >= size)
		return 0;
	len = min_t(u64, size - off, KML_REC_MAX);
	err = izo_pread(j->kml, buf, min_t(size_t, len, 512), off);
	if (err)
		return err;
	n = kml_decode(buf, min_t(size_t, len, 512), r);
	if (n == -EAGAIN && len > 512) {
		err = izo_pread(j->kml, buf, len, off);
		if (err)
			return err;
		n = kml_decode(buf, len, r);
	}
	return n < 0 ? 0 : n;
}

/* The LML's number of the record that ends at end. */
static int seq_before(struct izo_journal *j, void *buf, u64 end, u64 *ret_seq)
{
	struct kml_rec_tail tail;
	struct kml_record r;
	size_t len;
	int err;

	*ret_seq = 0;
	if (end <= j->first_offset)
		return 0;
	err = izo_pread(j->kml, &tail, sizeof(tail), end - sizeof(tail));
	if (err)
		return err;
	len = le32_to_cpu(tail.len);
	if (le32_to_cpu(tail.magic) != KML_REC_MAGIC || len > KML_REC_MAX ||
	    len > end - j->first_offset)
		return -EBADMSG;
	if (record_at(j, buf, end - len, &r) != len)
		return -EBADMSG;
	*ret_seq = r.seq;
	return 0;
}

int izo_kml_find_end(struct izo_journal *j, u64 offset, u64 recno, u64 *ret_logged,
		     void (*fn)(const struct kml_record *r, void *data), void *data)
{
	void *buf = kvmalloc(KML_REC_MAX, GFP_KERNEL);
	struct kml_record r;
	ssize_t n;
	int err;

	if (!buf)
		return -ENOMEM;
	if (offset < j->first_offset) {
		offset = j->first_offset;
		recno = j->first_recno - 1;
	}
	while ((n = record_at(j, buf, offset, &r)) > 0 && r.recno == recno + 1) {
		fn(&r, data);
		offset += n;
		recno++;
		cond_resched();
	}
	err = n < 0 ? n : seq_before(j, buf, offset, ret_logged);
	kvfree(buf);
	j->end = offset;
	j->recno = recno;
	return err;
}

int izo_kml_each(struct izo_journal *j, u64 offset,
		 void (*fn)(const struct kml_record *r, void *data), void *data)
{
	void *buf = kvmalloc(KML_REC_MAX, GFP_KERNEL);
	struct kml_record r;
	ssize_t n = 0;

	if (!buf)
		return -ENOMEM;
	offset = max(offset, j->first_offset);
	while (offset < j->end && (n = record_at(j, buf, offset, &r)) > 0) {
		fn(&r, data);
		offset += n;
		cond_resched();
	}
	kvfree(buf);
	if (n < 0)
		return n;
	/* a position that is not one of this log */
	return offset == j->end ? 0 : -EBADMSG;
}

/* Giving back the front */

/* Does record recno end at offset? */
static int check_front(struct izo_journal *j, u64 offset, u64 recno)
{
	void *buf;
	struct kml_rec_tail tail;
	struct kml_record r;
	int err;

	if (offset < j->first_offset)
		return -ERANGE;
	if (offset == j->first_offset)
		return recno == j->first_recno - 1 ? 0 : -EINVAL;
	err = izo_pread(j->kml, &tail, sizeof(tail), offset - sizeof(tail));
	if (err)
		return err;
	if (le32_to_cpu(tail.magic) != KML_REC_MAGIC || le32_to_cpu(tail.len) > KML_REC_MAX ||
	    le32_to_cpu(tail.len) > offset - j->first_offset)
		return -EINVAL;
	buf = kvmalloc(KML_REC_MAX, GFP_KERNEL);
	if (!buf)
		return -ENOMEM;
	err = record_at(j, buf, offset - le32_to_cpu(tail.len), &r) == le32_to_cpu(tail.len) &&
	      r.recno == recno ? 0 : -EINVAL;
	kvfree(buf);
	return err;
}

static int move_front(struct izo_journal *j, u64 offset, u64 recno)
{
	struct kml_header h;
	int err;

	err = izo_pread(j->kml, &h, sizeof(h), 0);
	if (err)
		return err;
	h.first_offset = cpu_to_le64(offset);
	h.first_recno = cpu_to_le64(recno + 1);
	h.crc = cpu_to_le32(header_crc(&h));
	err = izo_pwrite(j->kml, &h, sizeof(h), 0);
	if (!err)
		err = vfs_fsync(j->kml, 0);
	if (err)
		return err;
	j->first_offset = offset;
	j->first_recno = recno + 1;
	return 0;
}

int izo_kml_punch(struct izo_journal *j, u64 offset, u64 recno)
{
	int err;

	err = check_front(j, offset, recno);
	if (!err && offset != j->first_offset)
		err = move_front(j, offset, recno);
	if (err || offset == KML_HEADER_SIZE)
		return err;
	err = vfs_fallocate(j->kml, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, KML_HEADER_SIZE,
			    offset - KML_HEADER_SIZE);
	return err == -EOPNOTSUPP ? 0 : err;
}
