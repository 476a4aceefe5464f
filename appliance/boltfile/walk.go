package boltfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
)

// Verify reads every page of the bbolt file at path that bbolt would read when it opens and walks the file: all
// but the second and further pages of large values. It returns nil where there is no file, or an empty one, which bbolt
// begins anew; an error that wraps ErrDamaged or ErrInUse; or the error that kept it from reading.
func Verify(path string) error {
	f, err := Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if len(f.content) == 0 {
		return nil
	}
	if err := f.Each(func(string, []byte, []byte) {}); err != nil {
		return fmt.Errorf("%s is %w", path, err)
	}
	return nil
}

// maxDamage is how much of it is told.
const maxDamage = 100

// Each visits what is readable in the top-level buckets, in the order of their keys, going on behind what is damaged.
// Nested buckets are walked and not visited. The error wraps ErrDamaged and tells all that was found.
func (f *File) Each(visit func(bucket string, key, value []byte)) error {
	f.walk(visit)
	if len(f.damage) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrDamaged, errors.Join(f.damage...))
}

// Harmed tells whether Each found damage in a top-level bucket, or above all of them.
func (f *File) Harmed(bucket string) bool { return f.harmed[""] || f.harmed[bucket] }

// Strays visits the elements of leaf pages outside the tree, once Each has walked that: of older states of the file,
// or of a part that a damaged page has cut off.
func (f *File) Strays(visit func(key, value []byte)) {
	for id := uint64(2); id < f.present(); id++ {
		if id < uint64(len(f.seen)) && f.seen[id] {
			continue
		}
		_ = Protect(func() { // what cannot be read is no loss: it is outside the tree
			p, err := f.page(id)
			if err != nil || p.flags() != leafPage {
				return
			}
			for i := range p.count() {
				if isBucket, key, value, ok := p.leafElement(i); ok && !isBucket {
					visit(key, value)
				}
			}
		})
	}
}

// Used lists the pages of the tree, once Each has walked it.
func (f *File) Used() (pages []int) {
	for id := 2; id < len(f.seen); id++ {
		if f.seen[id] {
			pages = append(pages, id)
		}
	}
	return pages
}

// Size is the number of bytes up to the last page ever used.
func (f *File) Size() int64 { return int64(f.meta.pages * f.meta.pageSize) }

func (f *File) walk(visit func(bucket string, key, value []byte)) {
	f.seen = make([]bool, min(f.meta.pages, f.present()))
	if !f.found {
		f.harm("neither of its two meta pages is whole")
		return
	}
	if f.meta.pages > f.present() {
		f.harm("it was cut off: it has %d bytes and should have %d pages of %d", len(f.content), f.meta.pages, f.meta.pageSize)
	}
	f.take(0, 0)
	f.take(1, 0)
	if f.meta.freelist != noFreelist {
		f.protected(f.meta.freelist, func() { f.freelist(f.meta.freelist) })
	}
	f.tree(f.meta.root, nil, nil, func(isBucket bool, name, value []byte) {
		if !isBucket {
			f.harm("%q stands where a bucket belongs", name)
			return
		}
		f.bucket = string(name)
		f.inside(value, func(isBucket bool, key, value []byte) {
			if isBucket {
				f.inside(value, nil)
			} else {
				visit(f.bucket, key, value)
			}
		})
		f.bucket = ""
	})
}

// visitor takes a leaf element; nil where nobody is interested, nested buckets then being walked all the same.
type visitor func(isBucket bool, key, value []byte)

func (f *File) harm(format string, args ...any) {
	f.harmed[f.bucket] = true
	if len(f.damage) < maxDamage {
		f.damage = append(f.damage, fmt.Errorf(format, args...))
	}
}

// take marks a page and those that belong to it, each of which may be met once.
func (f *File) take(id, overflow uint64) bool {
	for last := id + overflow; id <= last; id++ {
		if id >= uint64(len(f.seen)) {
			f.harm("page %d is beyond the last one, %d", id, len(f.seen)-1)
			return false
		}
		if f.seen[id] {
			f.harm("page %d is used twice", id)
			return false
		}
		f.seen[id] = true
	}
	return true
}

func (f *File) freelist(id uint64) {
	p, err := f.page(id)
	if err != nil {
		f.harm("%w", err)
		return
	}
	if !f.take(id, p.overflow()) {
		return
	}
	if p.flags() != freelistPage {
		f.harm("page %d has flags %#x: no freelist", id, p.flags())
		return
	}
	count, listed := uint64(p.count()), p.raw[pageHeader:]
	if count == 0xffff { // a longer list begins with its length
		count, listed = order.Uint64(listed), listed[8:]
	}
	if count > uint64(len(listed)/8) {
		f.harm("page %d: a freelist of %d pages does not fit into it", id, count)
		return
	}
	for i := range count {
		f.take(order.Uint64(listed[8*i:]), 0)
	}
}

// inside walks a bucket by its value.
func (f *File) inside(value []byte, visit visitor) {
	if len(value) < bucketHeader {
		f.harm("a bucket of %d bytes", len(value))
		return
	}
	if root := order.Uint64(value); root != 0 {
		f.tree(root, nil, nil, visit)
		return
	}
	inline := page{value[bucketHeader:]}
	if len(inline.raw) < pageHeader || inline.flags() != leafPage {
		f.harm("an inline bucket is no leaf page")
		return
	}
	f.leaf(0, inline, nil, nil, visit)
}

// tree visits the page with this id and what is below; its keys are at least low and less than high, where set.
func (f *File) tree(id uint64, low, high []byte, visit visitor) {
	f.protected(id, func() { f.subtree(id, low, high, visit) })
}

// protected reads a page: that it cannot be read is damage of this one alone.
func (f *File) protected(id uint64, read func()) {
	if err := Protect(read); err != nil {
		f.harm("page %d: %w", id, err)
	}
}

func (f *File) subtree(id uint64, low, high []byte, visit visitor) {
	p, err := f.page(id)
	if err != nil {
		f.harm("%w", err)
		return
	}
	if !f.take(id, p.overflow()) {
		return
	}
	switch p.flags() {
	case leafPage:
		f.leaf(id, p, low, high, visit)
	case branchPage:
		f.branch(id, p, low, high, visit)
	default:
		f.harm("page %d has flags %#x: neither branch nor leaf", id, p.flags())
	}
}

func (f *File) branch(id uint64, p page, low, high []byte, visit visitor) {
	if p.count() == 0 {
		f.harm("page %d: a branch without a leaf", id)
	}
	for i := range p.count() {
		key, child, ok := p.branchElement(i)
		if !ok {
			f.harm("page %d: element %d lies outside of it", id, i)
			continue
		}
		f.checkOrder(id, low, key, high)
		until := high
		if next, _, ok := p.branchElement(i + 1); ok && i+1 < p.count() {
			if until = next; bytes.Compare(key, until) >= 0 {
				f.harm("page %d: key %d is not in order", id, i+1)
			}
		}
		f.tree(child, key, until, visit)
	}
}

func (f *File) leaf(id uint64, p page, low, high []byte, visit visitor) {
	var before []byte
	for i := range p.count() {
		isBucket, key, value, ok := p.leafElement(i)
		if !ok {
			f.harm("page %d: element %d lies outside of it", id, i)
			continue
		}
		f.checkOrder(id, low, key, high)
		if before != nil && bytes.Compare(before, key) >= 0 {
			f.harm("page %d: key %d is not in order", id, i)
		}
		before = key
		switch {
		case visit != nil:
			visit(isBucket, key, value)
		case isBucket:
			f.inside(value, nil)
		}
	}
}

func (f *File) checkOrder(id uint64, low, key, high []byte) {
	if low != nil && bytes.Compare(low, key) > 0 || high != nil && bytes.Compare(key, high) >= 0 {
		f.harm("page %d: key %x is not between %x and %x", id, key, low, high)
	}
}
