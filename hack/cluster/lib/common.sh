# shellcheck shell=bash disable=SC2154 # the variables are those of the script that sources this
# What the other files share: starting programs, waiting for them, telling of the ones that failed.

start() { # name arguments...
  local name=$1
  shift
  # A session of its own, and none of this script's files: it outlives the terminal, and holds neither a pipe nor the lock open.
  PATH=$bin:$PATH setsid "$bin/$name" "$@" > "$state/log/$name.log" 2>&1 < /dev/null 9>&- &
  echo $! > "$state/run/$name"
  disown # else bash would tell of it when it is killed
  # Until it becomes the program it has this script's arguments, and would be taken for one that has ended.
  until alive "$name" || ! kill -0 $! 2> /dev/null; do sleep 0.01; done
}

# Every component has a path under $state among its arguments: a process id that went to another program since is not taken for it.
alive() { # name
  local pid
  pid=$(cat "$state/run/$1" 2> /dev/null) || return 1
  grep -qsF "$state" "/proc/$pid/cmdline"
}

await() { # seconds name command...
  local end=$((SECONDS + $1)) name=$2
  shift 2
  until "$@" > /dev/null 2>&1; do
    alive "$name" || fail "$name"
    [ $SECONDS -lt $end ] || fail "$name"
    sleep 0.1
  done
}

fail() { # name
  local what="did not become ready"
  alive "$1" || what="ended"
  echo "cluster: $1 $what" >&2
  show_log "$1"
  exit 1
}

show_log() { # name
  [ -e "$state/log/$1.log" ] || return 0
  echo "the end of $1's log:" >&2
  tail -n 12 "$state/log/$1.log" | cut -c1-400 | sed 's/^/    /' >&2
}

listening() { # address port
  timeout 1 bash -c "exec 3<> /dev/tcp/$1/$2" 2> /dev/null
}

ready() {
  listening 127.0.0.1 6443 && kubectl get --raw /readyz > /dev/null 2>&1
}

kubectl() {
  "$bin/kubectl" --kubeconfig "$admin" "$@"
}

ctr() {
  "$bin/ctr" --address "$sock" --namespace k8s.io "$@"
}
