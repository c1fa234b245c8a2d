# shellcheck shell=bash disable=SC2154 # the variables are those of the script that sources this
# Brings images from buildah's store into the node's.

# Without a registry: an OCI layout is written beside the node's store, in which the blobs that the node has stand as links, so
# that buildah writes out the missing ones only and containerd reads those only. Nothing is compressed.
load() { # image...
  [ -S "$sock" ] || { echo "cluster: down" >&2; return 1; }
  local image name id label begin
  label=dropout-operator/image-id
  for image in "$@"; do
    begin=$SECONDS
    name=$(buildah inspect --type image --format '{{.FromImage}}' "$image") || {
      echo "cluster: buildah's store has no image $image" >&2
      return 1
    }
    id=$(buildah inspect --type image --format '{{.FromImageID}}' "$image")
    if [ "$(ctr images ls -q "name==$name,labels.\"$label\"==$id")" = "$name" ]; then
      echo "$name: the node has it already" >&2
      continue
    fi
    import_image "$name"
    ctr images label "$name" "$label=$id" > /dev/null
    echo "$name: loaded in $((SECONDS - begin)) s" >&2
  done
}

import_image() ( # name
  layout=$(mktemp -d "$home/load.XXXXXX")
  trap 'rm -rf "$layout"' EXIT
  mkdir -p "$layout/blobs/sha256"
  cp -rs "$images/io.containerd.content.v1.content/blobs/." "$layout/blobs/" 2> /dev/null || true # empty at first
  # skopeo, because buildah's own push compresses what goes into an OCI layout, whatever its options say.
  skopeo copy -q --dest-oci-accept-uncompressed-layers "containers-storage:$1" "oci:$layout:$1" 2> "$layout/log" || {
    cat "$layout/log" >&2
    exit 1
  }
  cd "$layout"
  find . -type f -print0 | tar --create --no-recursion --null --files-from - | ctr images import --local - > /dev/null
)

pause_image() { # the sandbox container's one program
  local container
  [ -z "$(ctr images ls -q name==localhost/pause:1)" ] || return 0
  container=$(buildah from scratch)
  buildah copy -q "$container" "$bin/pause" /pause > /dev/null
  buildah config --entrypoint '["/pause"]' "$container"
  buildah commit -q --rm "$container" localhost/pause:1 > /dev/null
  load localhost/pause:1
}
