/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tracepoints, group "intermezzo" (man/intermezzo.4): operations with their records, the
 * log's two threads, recovery, requests of the daemon.  izo_trace.c makes them; a kernel without
 * tracing has none.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM intermezzo

#if !defined(INTERMEZZO_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define INTERMEZZO_TRACE_H

#include "journal.h"

#include <linux/tracepoint.h>

#define izo_show_opcode(op) __print_symbolic(op,				\
	{ KML_CREATE, "CREATE" }, { KML_MKDIR, "MKDIR" }, { KML_UNLINK, "UNLINK" },	\
	{ KML_RMDIR, "RMDIR" }, { KML_CLOSE, "CLOSE" }, { KML_SYMLINK, "SYMLINK" },	\
	{ KML_RENAME, "RENAME" }, { KML_SETATTR, "SETATTR" }, { KML_LINK, "LINK" },	\
	{ KML_MKNOD, "MKNOD" }, { KML_SETXATTR, "SETXATTR" },			\
	{ KML_REMOVEXATTR, "REMOVEXATTR" })

DECLARE_EVENT_CLASS(izo_op_class,
	TP_PROTO(const struct izo_op *op),
	TP_ARGS(op),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u32, opcode)
		__field(u64, seq)
		__field(u64, parent)
		__field(u64, tparent)
		__field(u64, ino)
		__field(u32, gen)
		__field(u32, len)
		__dynamic_array(char, name, op->r.name.len + 1)
	),
	TP_fast_assign(
		__entry->dev = op->j->sbi->sb->s_dev;
		__entry->opcode = op->r.opcode;
		__entry->seq = op->seq;
		__entry->parent = op->r.parent.ino;
		__entry->tparent = op->r.tparent.ino;
		__entry->ino = op->r.obj.ino;
		__entry->gen = op->r.obj.gen;
		__entry->len = op->r.name.len;
		memcpy(__get_dynamic_array(name), op->r.name.ptr ?: "", op->r.name.len);
		((char *)__get_dynamic_array(name))[op->r.name.len] = 0;
	),
	TP_printk("dev %d:%d seq %llu %s ino %llu gen %u dir %llu to dir %llu name \"%s\"",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->seq,
		  izo_show_opcode(__entry->opcode), __entry->ino, __entry->gen,
		  __entry->parent, __entry->tparent, (char *)__get_dynamic_array(name))
);

DEFINE_EVENT(izo_op_class, izo_op_begin, TP_PROTO(const struct izo_op *op), TP_ARGS(op));
DEFINE_EVENT(izo_op_class, izo_op_done, TP_PROTO(const struct izo_op *op), TP_ARGS(op));
DEFINE_EVENT(izo_op_class, izo_op_abort, TP_PROTO(const struct izo_op *op), TP_ARGS(op));

/* Something happened to a log from one position to another, up to a record. */
DECLARE_EVENT_CLASS(izo_log_class,
	TP_PROTO(const struct izo_journal *j, u64 from, u64 to, u64 recno, int error),
	TP_ARGS(j, from, to, recno, error),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, from)
		__field(u64, to)
		__field(u64, recno)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->dev = j->sbi->sb->s_dev;
		__entry->from = from;
		__entry->to = to;
		__entry->recno = recno;
		__entry->error = error;
	),
	TP_printk("dev %d:%d %llu to %llu, record %llu, error %d", MAJOR(__entry->dev),
		  MINOR(__entry->dev), __entry->from, __entry->to, __entry->recno, __entry->error)
);

#define IZO_LOG_EVENT(name)								\
	DEFINE_EVENT(izo_log_class, name,						\
		TP_PROTO(const struct izo_journal *j, u64 from, u64 to, u64 recno, int error), \
		TP_ARGS(j, from, to, recno, error))

IZO_LOG_EVENT(izo_kml_append);	/* to the KML */
IZO_LOG_EVENT(izo_lml_flush);	/* what is left of the ring; the KML is durable up to the record */
IZO_LOG_EVENT(izo_checkpoint);	/* the tree has all of the KML now */

TRACE_EVENT(izo_recover,
	TP_PROTO(const struct izo_journal *j, int error),
	TP_ARGS(j, error),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, entries)
		__field(u64, looked)
		__field(u64, records)
		__field(u64, recno)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->dev = j->sbi->sb->s_dev;
		__entry->entries = j->recovered.entries;
		__entry->looked = j->recovered.looked;
		__entry->records = j->recovered.records;
		__entry->recno = j->recno;
		__entry->error = error;
	),
	TP_printk("dev %d:%d %llu entries, %llu objects looked at, %llu records, last %llu, error %d",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->entries,
		  __entry->looked, __entry->records, __entry->recno, __entry->error)
);

TRACE_EVENT(izo_change,
	TP_PROTO(const struct inode *inode, u64 off, u64 len),
	TP_ARGS(inode, off, len),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, ino)
		__field(u64, off)
		__field(u64, len)
	),
	TP_fast_assign(
		__entry->dev = inode->i_sb->s_dev;
		__entry->ino = inode->i_ino;
		__entry->off = off;
		__entry->len = len;
	),
	TP_printk("dev %d:%d ino %llu: %llu bytes at %llu", MAJOR(__entry->dev),
		  MINOR(__entry->dev), __entry->ino, __entry->len, __entry->off)
);

TRACE_EVENT(izo_request,
	TP_PROTO(const struct super_block *sb, unsigned int type, size_t len, int error),
	TP_ARGS(sb, type, len, error),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(unsigned int, type)
		__field(size_t, len)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->dev = sb->s_dev;
		__entry->type = type;
		__entry->len = len;
		__entry->error = error;
	),
	TP_printk("dev %d:%d type %u, %zu bytes, error %d", MAJOR(__entry->dev),
		  MINOR(__entry->dev), __entry->type, __entry->len, __entry->error)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE izo_trace
#include <trace/define_trace.h>
