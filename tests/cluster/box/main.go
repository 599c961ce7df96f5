// What test pods run: one static program, so that an image of it needs no base and is made in a moment.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

const usage = `usage: box pause | sleep SECONDS | exit CODE | write FILE TEXT | show FILE | hog MEBIBYTES
         | serve PORT TEXT | fetch URL [SECONDS] | ready URL | api PATH`

const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

func main() {
	arguments := append(os.Args[1:], "", "", "")
	var err error
	switch arguments[0] {
	case "pause":
		pause()
	case "sleep":
		err = sleep(arguments[1])
	case "exit":
		os.Exit(number(arguments[1]))
	case "write":
		err = os.WriteFile(arguments[1], []byte(arguments[2]), 0o644)
	case "show":
		err = printFile(arguments[1])
	case "hog":
		hog(number(arguments[1]))
	case "serve":
		err = serve(arguments[1], arguments[2])
	case "fetch":
		err = fetch(arguments[1], arguments[2])
	case "ready":
		err = ready(arguments[1])
	case "api":
		err = api(arguments[1])
	default:
		err = errors.New(usage)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "box:", err)
		os.Exit(1)
	}
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil {
		fmt.Fprintln(os.Stderr, "box:", err)
		os.Exit(2)
	}
	return value
}

// pause is the first process of a pod or of a cluster's namespaces: it waits for the orphans until it is told to go.
func pause() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}

// sleep ends early, with code 0, on SIGTERM.
func sleep(seconds string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	select {
	case <-signals:
	case <-time.After(time.Duration(number(seconds)) * time.Second):
	}
	return nil
}

func printFile(file string) error {
	content, err := os.ReadFile(file)
	os.Stdout.Write(content)
	return err
}

// hog takes and touches that much memory and then sleeps.
func hog(mebibytes int) {
	held := make([][]byte, 0, mebibytes)
	for len(held) < mebibytes {
		block := make([]byte, 1<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		held = append(held, block)
	}
	fmt.Println("holding", len(held), "MiB")
	time.Sleep(time.Hour)
}

func serve(port, text string) error {
	answer := func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, text) }
	return http.ListenAndServe(":"+port, http.HandlerFunc(answer))
}

// fetch prints what the address answers; it tries again for so many seconds (30): names and servers come up late.
func fetch(url, seconds string) error {
	if seconds == "" {
		seconds = "30"
	}
	client := &http.Client{Timeout: 2 * time.Second}
	end := time.Now().Add(time.Duration(number(seconds)) * time.Second)
	for {
		answer, err := client.Get(url)
		if err == nil {
			return show(answer)
		}
		if time.Now().After(end) {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// ready says by its exit code whether the address answers with status 200, whatever its certificate.
func ready(url string) error {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	answer, err := (&http.Client{Timeout: 2 * time.Second, Transport: transport}).Get(url)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, answer.Status)
	}
	return err
}

// api asks the API server as a pod does: by its service's name, with the mounted token and certificate.
func api(path string) error {
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return err
	}
	authority, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	request, err := http.NewRequest(http.MethodGet, "https://kubernetes.default.svc"+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	answer, err := (&http.Client{Timeout: 10 * time.Second, Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	return show(answer)
}

func show(answer *http.Response) error {
	defer answer.Body.Close()
	fmt.Println(answer.Status)
	_, err := io.Copy(os.Stdout, answer.Body)
	return err
}
