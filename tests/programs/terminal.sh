# terminal.sh - chat in a real terminal, as a person uses it: keys, pastes, emoji, history, a narrow window.
. "$(dirname "$0")/support.inc"
command -v tmux > /dev/null || { echo "skipped terminal: no tmux (apt-get install tmux)"; exit 0; }
server=0
LC_ALL=C.UTF-8
export LC_ALL
tm() { tmux -f /dev/null -S "$dir/tmux$server" "$@" 2> /dev/null; }
trap 'tm kill-server; rm -rf "$dir"' EXIT

# started COLUMNS COMMAND: a terminal of its own, which stays when the command ends.
started() {
    tm kill-server
    server=$((server + 1))
    tm new-session -d -x "$1" -y 30 "$2; sleep 60"
}
# opened COMMAND: the same with a prompt, and history that is the test's own.
opened() {
    started "${columns:-70}" "env XDG_STATE_HOME=$dir/state $1"
    shown "^>" || failed "a prompt" "$(screen | tail -n 3)"
}
screen() { tm capture-pane -p -J; }
# shown PATTERN: the screen has it within some seconds.
shown() {
    tries=0
    while [ $tries -lt 100 ]; do
        screen | grep -q -e "$1" && return 0
        tries=$((tries + 1))
        sleep 0.1
    done
    return 1
}
sees() { if shown "$2"; then ok "$1"; else failed "$1" "no \"$2\" on the screen: $(screen | grep . | tail -n 4 | tr '\n' '|')"; fi; }
type() { tm send-keys -l "$1"; }
keys() { tm send-keys "$@"; }
empty() { keys C-e C-u; }
# What was asked, as the session saves it: the contents of the user's messages, one JSON line.
asked() {
    rm -f "$dir/saved.jsonl"
    type "/save $dir/saved.jsonl"; keys Enter
    tries=0
    while [ ! -s "$dir/saved.jsonl" ] && [ $tries -lt 100 ]; do tries=$((tries + 1)); sleep 0.1; done
    sleep 0.5; keys C-l; sleep 0.2                     # until the next prompt is there
    cat "$dir/saved.jsonl" 2> /dev/null
}
saved() { if asked | grep -q -F -e "$2"; then ok "$1"; else failed "$1" "no $2 in: $(cat "$dir/saved.jsonl" 2> /dev/null | cut -c 1-300)"; fi; }
answered() { shown "tok/s" || failed "an answer" "$(screen | tail -n 3)"; keys C-l; sleep 0.3; }

chat="./chat -m $model --temp 0"
opened "$chat -n 3"
printf 'first line\nsecond line\tand more\nthird' > "$dir/paste"
tm load-buffer "$dir/paste"
tm paste-buffer -p
sees "a paste is one line until Enter" "> first line.*second line and more.*third"
keys Enter; answered
saved "and one question" '"first line\nsecond line\tand more\nthird"'

type "/clear"; keys Enter
type "a ✔️ b 👨‍👩‍👧‍👦"; keys BSpace
sees "Backspace takes a family whole" "^> a ✔. b *$"
keys BSpace BSpace BSpace BSpace
type "!"
sees "and a check mark" "^> a *! *$"
empty; type "e"; type "́x"; keys Left BSpace; type "é🇩🇪y"; keys Left BSpace
sees "an accent and a flag too" "^> éyx"
empty; type "one two-three four"; keys M-b M-b C-w; type "2"
sees "words: back, cut" "^> one 2three four"
keys C-a M-f M-d; type "!"
sees "words: forward, cut" "^> one! four"
keys C-e C-Left C-k C-y C-y
sees "what was cut comes back" "^> one! fourfour"
empty; type "wide 中文字"; keys Left Left; type "x"
sees "wide characters" "wide 中x文字"
empty; type "up"; keys M-Enter; type "down"; keys Enter; answered
saved "Alt-Enter is a line break" '"up\ndown"'
type "line one\\"; keys Enter; type "line two"; keys Enter; answered
saved "a backslash at the end too" '"line one\nline two"'

keys C-r; type "first"
sees "Ctrl-R finds" "(search 'first') first line.*third"
keys C-g
sees "Ctrl-G leaves it" "^> *$"
keys C-r; type "line"; keys C-r
sees "Ctrl-R again goes on" "(search 'line') first line"
keys Escape; sleep 0.2; keys C-e; type "!"
sees "and what was found can be edited" "> first line.*third!"
empty; type "/exit"; keys Enter
sleep 0.3
[ "$(stat -c %a "$dir/state/qlora/chat_history")" = 600 ] && ok "history is its owner's" || failed "history is its owner's" "$(ls -l "$dir/state/qlora" 2>&1)"

opened "$chat -n 3 --history $dir/state/qlora/chat_history"
keys Up Up Up
sees "history of the session before" "^> .*line two"
empty; type " secret"; keys Enter; answered
grep -q secret "$dir/state/qlora/chat_history" && failed "a blank keeps a line out of it" "it is there" || ok "a blank keeps a line out of it"
keys C-c
sees "Ctrl-C asks" "Ctrl-C again"
opened "$chat -n 3 --history off"
type "unwritten"; keys Enter; answered
grep -q unwritten "$dir/state/qlora/chat_history" && failed "--history off" "it is there" || ok "--history off"

columns=30
opened "$chat -n 40"
sees "a narrow terminal has a prompt" "^>"
type "a line that is much longer than this window is wide"
sees "a long line scrolls" "^> .*window is wide *$"
keys C-a
sees "to its beginning too" "^> a line that is much longer"
keys Enter
sees "an answer that -n cuts is marked" "(cut: an answer has 40"
columns=70
opened "$chat -n 3 --context 160"
i=0
while [ $i -lt 4 ]; do type "Question $i of several"; keys Enter; answered; i=$((i + 1)); done
saved "the dialogue goes on" "Question 3"
grep -q "Question 0" "$dir/saved.jsonl" && failed "its oldest turns are dropped" "$(cat "$dir/saved.jsonl")" || ok "its oldest turns are dropped"

# ---- Training: the line that is rewritten
started 40 "./finetune -m $model --data $dir/chats.jsonl -o $dir/narrow $small --iters 100000"
sees "40 columns: the time left" "left [0-9]"
[ "$(screen | grep -c 'left [0-9]')" -eq 1 ] && ok "on one line" || failed "on one line" "$(screen | tail -n 5)"
keys C-c
sees "Ctrl-C stops it" "stopped after step"
exit $((failures > 0))
