#!/usr/bin/env bash
# Fetches MARDM's published weights, evaluators and word vectors from where their authors put them.
#   bash scripts/download.sh ITEM ...      items: sit ddpm ae length evaluators_t2m evaluators_kit glove
#                                          groups: sample (sit ae length), evaluators (evaluators_t2m evaluators_kit glove), all
#   bash scripts/download.sh --list        what each item is, where it comes from and which file it puts where
#   --root DIR                             put checkpoints/ and glove/ there [the repository]
#
# An interrupted download goes on where it stopped; what is there already is left alone. Sizes and sha256 sums are
# those that the host announces (Hugging Face does, Google Drive does not); every archive's sum is also recorded in
# checkpoints/downloads.sha256 when it first arrives, and a later download has to match it.
# If a host refuses (quota, no network): fetch the link with a browser, put the archive into checkpoints/.downloads/
# under the name that --list shows, and run the same command again.
set -euo pipefail

hub=${FSQ_MARDM_HUB:-https://huggingface.co}
drive=${FSQ_MARDM_DRIVE:-https://drive.usercontent.google.com}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# item | archive | unpacked in | a file that must then be there | address
items() {
    cat <<END
sit|MARDM_SiT_XL.zip|checkpoints/t2m|MARDM_SiT_XL/model/latest.tar|$hub/cr8br0ze/MARDM_SiT_XL/resolve/main/MARDM_SiT_XL.zip
ddpm|MARDM_DDPM_XL.zip|checkpoints/t2m|MARDM_DDPM_XL/model/latest.tar|$hub/cr8br0ze/MARDM_DDPM_XL/resolve/main/MARDM_DDPM_XL.zip
ae|AE_humanml3d.zip|checkpoints/t2m|AE/model/latest.tar|$hub/cr8br0ze/AE_humanml3d/resolve/main/AE_humanml3d.zip
length|length_estimator.zip|checkpoints/t2m|length_estimator/model/finest.tar|$hub/cr8br0ze/length_estimator/resolve/main/length_estimator.zip
evaluators_t2m|evaluators_humanml3d.zip|checkpoints/t2m|text_mot_match/model/finest.tar|$hub/cr8br0ze/evaluators_humanml3d/resolve/main/evaluators_humanml3d.zip
evaluators_kit|evaluators_kit.zip|checkpoints/kit|text_mot_match/model/finest.tar|$hub/cr8br0ze/evaluators_kit/resolve/main/evaluators_kit.zip
glove|glove.zip|.|glove/our_vab_data.npy|$drive/download?id=1cmXKUT31pqd7_XpJAiWEo1K81TMYHA5n&export=download&confirm=t
END
}

line_of() {
    items | awk -F'|' -v item="$1" '$1 == item'
}

fail() {
    echo "download: $*" >&2
    exit 1
}

sha256() {
    if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1
}

bytes() {
    wc -c <"$1" | tr -d ' '
}

# What the host says of a file before it redirects to its storage: "size sha256", or nothing.
announced() {
    curl -sSI --max-time 30 "$1" 2>/dev/null | tr -d '\r"' | awk '
        tolower($1) == "x-linked-size:" { size = $2 }
        tolower($1) == "x-linked-etag:" && length($2) == 64 { sum = $2 }
        END { if (size != "" && sum != "") print size, sum }' || true
}

# Continue $2, or begin it anew where the host cannot continue (curl's exit 33).
transfer() {
    local code=0
    curl -fL --retry 3 --retry-delay 2 --connect-timeout 20 -C - -o "$2" "$1" || code=$?
    if [ "$code" = 33 ]; then
        rm -f "$2"
        code=0
        curl -fL --retry 3 --retry-delay 2 --connect-timeout 20 -o "$2" "$1" || code=$?
    fi
    return "$code"
}

by_hand() {
    fail "$1. What has arrived is kept, so try again later; or open $2 in a browser, put the file at $3, and run this again"
}

# Bring the archive $2 from $1 to $3, checked; one that lies there already was put there by hand, or by an earlier run.
fetch() {
    local url=$1 name=$2 archive=$3 part="$3.part" size="" sum=""
    case "$url" in "$hub"*) read -r size sum <<<"$(announced "$url")" || true ;; esac
    if [ ! -f "$archive" ]; then
        if [ -z "$size" ] || [ ! -f "$part" ] || [ "$(bytes "$part")" != "$size" ]; then
            echo "$name from $url${size:+ ($size bytes)}"
            transfer "$url" "$part" || by_hand "$name did not arrive whole (curl says why above)" "$url" "$archive"
        fi
        if [ "$(head -c 2 "$part")" != PK ]; then
            rm -f "$part"
            by_hand "the host sent a page in place of $name (its download quota is probably spent)" "$url" "$archive"
        fi
        mv "$part" "$archive"
    fi
    if [ -n "$size" ] && { [ "$(bytes "$archive")" != "$size" ] || [ "$(sha256 "$archive")" != "$sum" ]; }; then
        rm -f "$archive"
        fail "$name arrived damaged (size or sha256 is not what $hub announces), and is removed: run this again"
    fi
    "$python" -m zipfile -t "$archive" >/dev/null || fail "$archive is no whole zip archive: remove it and run this again"
    remember "$name" "$archive"
}

# Compare with the sum of the first download, or record it.
remember() {
    local sums="$root/checkpoints/downloads.sha256" sum first
    sum=$(sha256 "$2")
    first=$(awk -v name="$1" '$2 == name { print $1 }' "$sums" 2>/dev/null || true)
    if [ -z "$first" ]; then
        echo "$sum  $1" >>"$sums"
    elif [ "$first" != "$sum" ]; then
        fail "$2 is not the file that came first (sha256 $sum, then $first): if its authors renewed it, remove its line from $sums"
    fi
}

get() {
    local archive=$2 folder="$root/$3" wanted="$root/$3/$4" url=$5 store="$root/checkpoints/.downloads"
    if [ -f "$wanted" ]; then
        echo "$1: $wanted is there"
        return
    fi
    mkdir -p "$store" "$folder"
    fetch "$url" "$archive" "$store/$archive"
    "$python" -m zipfile -e "$store/$archive" "$folder"
    rm -rf "$folder/__MACOSX"
    [ -f "$wanted" ] || fail "$archive is unpacked in $folder, but $wanted is not there: move its folder to where that path says"
    rm "$store/$archive"
    echo "$1: $wanted"
}

main() {
    local wanted=() item archive folder file url
    while [ $# -gt 0 ]; do
        case "$1" in
            -h | --help) sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;;
            --list)
                items | while IFS='|' read -r item archive folder file url; do
                    printf '%-11s %s\n%12s-> %s/%s\n%12sfrom %s\n' "$item" "$archive" "" "$folder" "$file" "" "$url"
                done
                exit
                ;;
            --root) root=$(cd "${2:?--root needs a folder}" && pwd) && shift ;;
            sample) wanted+=(sit ae length) ;;
            evaluators) wanted+=(evaluators_t2m evaluators_kit glove) ;;
            all) wanted+=(sit ddpm ae length evaluators_t2m evaluators_kit glove) ;;
            *)
                [ -n "$(line_of "$1")" ] || fail "$1: not an item or a group, see --help"
                wanted+=("$1")
                ;;
        esac
        shift
    done
    [ ${#wanted[@]} -gt 0 ] || fail "say what to fetch, see --help"
    command -v curl >/dev/null || fail "curl is missing: install it, or fetch by hand what --list shows"
    python=$(command -v python3 || command -v python) || fail "no python to unpack with"
    for item in "${wanted[@]}"; do
        IFS='|' read -r item archive folder file url <<<"$(line_of "$item")"
        get "$item" "$archive" "$folder" "$file" "$url"
    done
}

main "$@"
