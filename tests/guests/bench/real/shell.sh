# A script as of a build system: substitutions, arithmetic, patterns, and many small processes.
set -e
i=0
while [ $i -lt 12 ]; do
    name=object-$i.c
    base=${name%.c}
    case $base in
    *7) kind=seven ;;
    *[02468]) kind=even ;;
    *) kind=odd ;;
    esac
    sum=$(echo "$base $kind" | md5sum | cut -c1-8)
    echo "$sum $base $kind" >>/tmp/list
    i=$((i + 1))
done
sort /tmp/list
j=0
total=0
while [ $j -lt 5000 ]; do
    total=$(((total * 31 + j) % 65521))
    j=$((j + 1))
done
echo $total
