package spool

import bolt "go.etcd.io/bbolt"

type Salvage struct{}

func openOrSalvage(path string, options Options) (*bolt.DB, *Salvage, error) {
	db, err := openFile(path)
	return db, nil, err
}
