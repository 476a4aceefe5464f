package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
)

// pdfAttachment takes the PDF out of a message.
func pdfAttachment(message []byte) ([]byte, error) {
	parsed, err := mail.ReadMessage(bytes.NewReader(message))
	if err != nil {
		return nil, err
	}
	if parsed.Header.Get("Received") == "" {
		return nil, errors.New("no Received field: it did not pass the box")
	}
	_, parameters, err := mime.ParseMediaType(parsed.Header.Get("Content-Type"))
	if err != nil {
		return nil, err
	}
	parts := multipart.NewReader(parsed.Body, parameters["boundary"])
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("no PDF is attached")
		}
		if err != nil {
			return nil, err
		}
		if kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type")); kind == "application/pdf" {
			return io.ReadAll(base64.NewDecoder(base64.StdEncoding, part))
		}
	}
}
