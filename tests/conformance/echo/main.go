// A CSI plugin on the official stubs that writes down every request as it decoded it, and answers with every field of
// the response set. The tests beside it compare both with what Moorage meant to say and understood.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
)

// recorder appends one line of JSON per request: the method, a tab, the request in the field names of the .proto.
type recorder struct {
	mutex sync.Mutex
	file  *os.File
}

func (r *recorder) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(request.(proto.Message))
	if err != nil {
		return nil, err
	}
	r.mutex.Lock()
	_, err = fmt.Fprintf(r.file, "%s\t%s\n", info.FullMethod, text)
	r.mutex.Unlock()
	if err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

func main() {
	socket := flag.String("socket", "", "path of the unix socket to listen on")
	requests := flag.String("requests", "", "file to append the requests to")
	descriptor := flag.Bool("descriptor", false, "write the descriptor of csi.proto to stdout, and end")
	flag.Parse()
	if err := run(*socket, *requests, *descriptor); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(socket, requests string, descriptor bool) error {
	if descriptor {
		encoded, err := proto.Marshal(protodesc.ToFileDescriptorProto(csi.File_csi_proto))
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(encoded)
		return err
	}
	file, err := os.OpenFile(requests, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor((&recorder{file: file}).intercept))
	csi.RegisterIdentityServer(server, identity{})
	csi.RegisterControllerServer(server, controller{})
	csi.RegisterNodeServer(server, node{})
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		server.GracefulStop()
	}()
	return server.Serve(listener)
}
