#!/usr/bin/env bash
# Try README's first command, and with --tests its second one, on a bare Debian: Python, venv and git, nothing else.
#
#     sudo scripts/clean_room.sh [--tests] [--suite bookworm|trixie] [FOLDER]
#
# Makes a root with debootstrap in FOLDER (default: a new temporary folder, removed at the end), copies the committed
# files of this checkout into it, and runs the commands there as a user without rights. Packages come from the index
# that pip is configured for. Needs root, debootstrap, about 8 GB, and the network.
set -euo pipefail
checkout=$(cd "$(dirname "$0")/.." && pwd)
suite=bookworm tests=no folder=
while [ $# -gt 0 ]; do
    case $1 in
        --tests) tests=yes ;;
        --suite) suite=$2; shift ;;
        -*) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
        *) folder=$1 ;;
    esac
    shift
done
[ "$(id -u)" = 0 ] || { echo "clean_room.sh needs root, for debootstrap and chroot" >&2; exit 2; }

temporary=no
if [ -z "$folder" ]; then
    folder=$(mktemp -d) temporary=yes
fi
leave() {
    umount "$folder/dev/pts" "$folder/dev/shm" "$folder/sys" "$folder/proc" 2>/dev/null || true
    [ "$temporary" = no ] || rm -rf --one-file-system "$folder"
}
trap leave EXIT

[ -x "$folder/usr/bin/python3" ] ||
    debootstrap --variant=minbase --include=python3,python3-venv,git,ca-certificates "$suite" "$folder"
mount -t proc proc "$folder/proc"
mount -t sysfs -o ro sysfs "$folder/sys"
mkdir -p "$folder/dev/shm" && mount -t tmpfs -o mode=1777 shm "$folder/dev/shm" # PyTorch shares tensors there
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$folder/dev/pts" && ln -sf pts/ptmx "$folder/dev/ptmx"
cp /etc/resolv.conf /etc/hosts "$folder/etc/" # torchrun asks for its own host
# The index and the certificates that pip uses here
for file in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    [ ! -e "$file" ] || cp -L "$file" "$folder$file"
done

chroot "$folder" sh -c 'id visitor >/dev/null 2>&1 || useradd --create-home visitor'
rm -rf "$folder/home/visitor/codeformer"
git -C "$checkout" archive --prefix=codeformer/ HEAD | tar -x -C "$folder/home/visitor"
chroot "$folder" chown -R visitor: /home/visitor

inside() { chroot "$folder" su visitor -c "cd ~/codeformer && sh -ec '$1'"; }

echo "== $(cat "$folder/etc/debian_version"), $(chroot "$folder" python3 --version)"
inside "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/codeformer restore -w 0.7 --input_path inputs/whole_imgs"
inside "ls -l results/whole_imgs_0.7/final_results"
[ "$(ls "$folder/home/visitor/codeformer/results/whole_imgs_0.7/final_results" | wc -l)" = 3 ]
echo "== libraries that cv2 asks for and this root lacks (there must be none)"
inside "! ldd .venv/lib/python3*/site-packages/cv2/*.so | grep \"not found\""
inside "du -sm .venv/lib/python3*/site-packages | cut -f1" | sed 's/$/ MB in the environment/'
if [ "$tests" = yes ]; then
    inside "rm -rf .venv && python3 -m venv .venv && .venv/bin/pip install \".[test]\" && .venv/bin/pytest"
fi
echo "== the clean room is content"
