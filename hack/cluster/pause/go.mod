// The one program in the sandbox container's image.
module cluster/pause

go 1.26.0
