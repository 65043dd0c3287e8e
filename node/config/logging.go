package config

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// Logger returns the logger that c describes, writing to w. c must be valid.
func (c Log) Logger(w io.Writer) *slog.Logger {
	level, err := c.level()
	if err != nil {
		panic("config: Logger of an unchecked configuration: " + err.Error())
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

func (c Log) level() (slog.Level, error) {
	switch strings.ToLower(c.Level) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("%q is none of debug, info, warn, error", c.Level)
}
