/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bucket type for content that must not change while it is sent.  Like
 * httpd's file bucket it can be split for ranges, and is read piece by piece;
 * unlike that it is neither mapped nor handed to sendfile(), and what was read goes on only
 * if the file is still what it was.  Otherwise the read fails, and httpd closes
 * the connection before the promised length.
 */
#include "mod_intersync.h"

#include "util.h"

struct content {
	apr_bucket_refcount	refcount;
	int			fd;	/* the request's pool closes it */
	mis_check		check;
	const void		*data;
};

static void content_destroy(void *data)
{
	if (apr_bucket_shared_destroy(data))
		apr_bucket_free(data);
}

static const apr_bucket_type_t content_type;

/* What remains behind the piece that e has become. */
static void insert_rest(apr_bucket *e, struct content *c, apr_off_t start, apr_size_t len)
{
	apr_bucket *b = apr_bucket_alloc(sizeof(*b), e->list);

	APR_BUCKET_INIT(b);
	b->type = &content_type;
	b->free = apr_bucket_free;
	b->list = e->list;
	b->data = c;
	b->start = start;
	b->length = len;
	APR_BUCKET_INSERT_AFTER(e, b);
}

static apr_status_t content_read(apr_bucket *e, const char **str, apr_size_t *len,
				 apr_read_type_e block)
{
	struct content *c = e->data;
	apr_off_t start = e->start;
	apr_size_t length = e->length;
	apr_size_t n = length < MIS_CHUNK ? length : MIS_CHUNK;
	char *buf = malloc(n ? n : 1);

	if (!buf)
		return APR_ENOMEM;
	if (pread_all(c->fd, buf, n, start) || !c->check(c->fd, c->data)) {
		free(buf);
		mis_count(&mis_counters->broken, 1);
		return APR_EGENERAL;
	}
	if (n < length)
		insert_rest(e, c, start + n, length - n);
	else
		content_destroy(c);
	apr_bucket_heap_make(e, buf, n, free);
	*str = buf;
	*len = n;
	return APR_SUCCESS;
}

static const apr_bucket_type_t content_type = {
	"INTERSYNC", 5, APR_BUCKET_DATA,
	content_destroy,
	content_read,
	apr_bucket_setaside_noop,	/* file and check live as long as the request */
	apr_bucket_shared_split,
	apr_bucket_shared_copy,
};

apr_bucket *mis_bucket_create(apr_bucket_alloc_t *list, int fd, uint64_t start, uint64_t len,
			      mis_check check, const void *data)
{
	apr_bucket *b = apr_bucket_alloc(sizeof(*b), list);
	struct content *c = apr_bucket_alloc(sizeof(*c), list);

	APR_BUCKET_INIT(b);
	b->free = apr_bucket_free;
	b->list = list;
	c->fd = fd;
	c->check = check;
	c->data = data;
	b = apr_bucket_shared_make(b, c, start, len);
	b->type = &content_type;
	return b;
}
