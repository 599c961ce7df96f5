package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/trace/noop"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	remote "k8s.io/cri-client/pkg"
	"k8s.io/klog/v2"
)

// newPullCommand asks a node's container runtime for images as a kubelet does: `pull SOCKET IMAGE...`.
// Only layers that the node lacks move, and a tag that has moved is followed.
func newPullCommand() *cobra.Command {
	return &cobra.Command{
		Use:  "pull SOCKET IMAGE...",
		Args: cobra.MinimumNArgs(2),
		RunE: func(command *cobra.Command, arguments []string) error {
			ctx := context.Background()
			service, err := remote.NewRemoteImageService(ctx, "unix://"+arguments[0], 20*time.Minute, noop.NewTracerProvider(), false)
			if err != nil {
				return err
			}
			for _, name := range arguments[1:] {
				reference, err := service.PullImage(ctx, &runtimeapi.ImageSpec{Image: name}, nil, nil)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				fmt.Println(name, reference)
			}
			klog.Flush()
			return nil
		},
	}
}
