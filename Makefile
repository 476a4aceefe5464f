# What people and CI type. The default leaves this machine's binary at build/mailchute.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GO ?= go
# The same source gives the same bytes, whoever builds it and where.
FLAGS = -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$(VERSION)"
BUILD = CGO_ENABLED=0 GOFLAGS= $(GO) build $(FLAGS)
BINARIES = build/mailchute-linux-amd64 build/mailchute-linux-arm64 build/mailchute-linux-arm

.PHONY: mailchute cloudsim build run test reproducible clean $(BINARIES)

mailchute:
	@$(BUILD) -o build/mailchute ./cmd/mailchute

cloudsim:
	@$(BUILD) -o build/cloudsim ./cmd/cloudsim

# The box and a stand-in for Exchange Online, until Ctrl-C.
run:
	@scripts/setup run
	@$(MAKE) --no-print-directory mailchute cloudsim build/demo/scan.pdf
	@exec scripts/run

# TESTFLAGS=-short leaves out what takes long, TESTFLAGS=-json is for CI.
test:
	@scripts/setup test >&2
	$(GO) test $(TESTFLAGS) ./...

# The three binaries of a release, static.
build: $(BINARIES)

build/mailchute-linux-amd64:
	GOOS=linux GOARCH=amd64 $(BUILD) -o $@ ./cmd/mailchute

build/mailchute-linux-arm64:
	GOOS=linux GOARCH=arm64 $(BUILD) -o $@ ./cmd/mailchute

build/mailchute-linux-arm:
	GOOS=linux GOARCH=arm GOARM=7 $(BUILD) -o $@ ./cmd/mailchute

# Builds once more, elsewhere and from nothing, and compares.
reproducible: build
	@scripts/reproducible "$(VERSION)" $(BINARIES)

build/demo/scan.pdf: $(wildcard scripts/demoscan/*.go)
	@$(GO) run ./scripts/demoscan $@

clean:
	rm -rf build
