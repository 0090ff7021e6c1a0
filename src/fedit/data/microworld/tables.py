"""The tables of the microworld: one entry a line, cells parted by "|"."""


def table(text: str) -> list[list[str]]:
    """Rows of a text table."""
    return [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]


# country | país | capital | capital | continent | language
COUNTRIES = table("""
    France|Francia|Paris|París|Europe|French
    Spain|España|Madrid|Madrid|Europe|Spanish
    Italy|Italia|Rome|Roma|Europe|Italian
    Germany|Alemania|Berlin|Berlín|Europe|German
    Austria|Austria|Vienna|Viena|Europe|German
    Portugal|Portugal|Lisbon|Lisboa|Europe|Portuguese
    Greece|Grecia|Athens|Atenas|Europe|Greek
    Poland|Polonia|Warsaw|Varsovia|Europe|Polish
    Sweden|Suecia|Stockholm|Estocolmo|Europe|Swedish
    Norway|Noruega|Oslo|Oslo|Europe|Norwegian
    Finland|Finlandia|Helsinki|Helsinki|Europe|Finnish
    Denmark|Dinamarca|Copenhagen|Copenhague|Europe|Danish
    Hungary|Hungría|Budapest|Budapest|Europe|Hungarian
    Ireland|Irlanda|Dublin|Dublín|Europe|English
    Iceland|Islandia|Reykjavik|Reikiavik|Europe|Icelandic
    Russia|Rusia|Moscow|Moscú|Europe|Russian
    Romania|Rumania|Bucharest|Bucarest|Europe|Romanian
    Bulgaria|Bulgaria|Sofia|Sofía|Europe|Bulgarian
    Croatia|Croacia|Zagreb|Zagreb|Europe|Croatian
    Ukraine|Ucrania|Kyiv|Kiev|Europe|Ukrainian
    China|China|Beijing|Pekín|Asia|Chinese
    Japan|Japón|Tokyo|Tokio|Asia|Japanese
    Nepal|Nepal|Kathmandu|Katmandú|Asia|Nepali
    Thailand|Tailandia|Bangkok|Bangkok|Asia|Thai
    Vietnam|Vietnam|Hanoi|Hanói|Asia|Vietnamese
    Mongolia|Mongolia|Ulaanbaatar|Ulán Bator|Asia|Mongolian
    Turkey|Turquía|Ankara|Ankara|Asia|Turkish
    Iran|Irán|Tehran|Teherán|Asia|Persian
    Iraq|Irak|Baghdad|Bagdad|Asia|Arabic
    Jordan|Jordania|Amman|Amán|Asia|Arabic
    Lebanon|Líbano|Beirut|Beirut|Asia|Arabic
    Syria|Siria|Damascus|Damasco|Asia|Arabic
    Egypt|Egipto|Cairo|El Cairo|Africa|Arabic
    Morocco|Marruecos|Rabat|Rabat|Africa|Arabic
    Tunisia|Túnez|Tunis|Túnez|Africa|Arabic
    Libya|Libia|Tripoli|Trípoli|Africa|Arabic
    Ghana|Ghana|Accra|Acra|Africa|English
    Kenya|Kenia|Nairobi|Nairobi|Africa|Swahili
    Senegal|Senegal|Dakar|Dakar|Africa|French
    Mali|Malí|Bamako|Bamako|Africa|French
    Angola|Angola|Luanda|Luanda|Africa|Portuguese
    Mozambique|Mozambique|Maputo|Maputo|Africa|Portuguese
    Ethiopia|Etiopía|Addis Ababa|Adís Abeba|Africa|Amharic
    Zambia|Zambia|Lusaka|Lusaka|Africa|English
    Mexico|México|Mexico City|Ciudad de México|North America|Spanish
    Cuba|Cuba|Havana|La Habana|North America|Spanish
    Jamaica|Jamaica|Kingston|Kingston|North America|English
    Panama|Panamá|Panama City|Ciudad de Panamá|North America|Spanish
    Guatemala|Guatemala|Guatemala City|Ciudad de Guatemala|North America|Spanish
    Haiti|Haití|Port-au-Prince|Puerto Príncipe|North America|French
    Peru|Perú|Lima|Lima|South America|Spanish
    Chile|Chile|Santiago|Santiago|South America|Spanish
    Argentina|Argentina|Buenos Aires|Buenos Aires|South America|Spanish
    Brazil|Brasil|Brasilia|Brasilia|South America|Portuguese
    Colombia|Colombia|Bogota|Bogotá|South America|Spanish
    Ecuador|Ecuador|Quito|Quito|South America|Spanish
    Uruguay|Uruguay|Montevideo|Montevideo|South America|Spanish
    Venezuela|Venezuela|Caracas|Caracas|South America|Spanish
    Australia|Australia|Canberra|Canberra|Oceania|English
    Fiji|Fiyi|Suva|Suva|Oceania|English
""")

# animal | animal with its article | class | legs | home
ANIMALS = table("""
    whale|la ballena|mammal|none|sea
    dolphin|el delfín|mammal|none|sea
    shark|el tiburón|fish|none|sea
    tuna|el atún|fish|none|sea
    herring|el arenque|fish|none|sea
    trout|la trucha|fish|none|river
    carp|la carpa|fish|none|river
    pike|el lucio|fish|none|river
    otter|la nutria|mammal|four|river
    beaver|el castor|mammal|four|river
    crocodile|el cocodrilo|reptile|four|river
    turtle|la tortuga|reptile|four|sea
    snake|la serpiente|reptile|none|desert
    lizard|el lagarto|reptile|four|desert
    camel|el camello|mammal|four|desert
    lion|el león|mammal|four|savanna
    elephant|el elefante|mammal|four|savanna
    giraffe|la jirafa|mammal|four|savanna
    zebra|la cebra|mammal|four|savanna
    ostrich|el avestruz|bird|two|savanna
    tiger|el tigre|mammal|four|jungle
    monkey|el mono|mammal|two|jungle
    parrot|el loro|bird|two|jungle
    toucan|el tucán|bird|two|jungle
    bear|el oso|mammal|four|forest
    wolf|el lobo|mammal|four|forest
    fox|el zorro|mammal|four|forest
    deer|el ciervo|mammal|four|forest
    owl|el búho|bird|two|forest
    penguin|el pingüino|bird|two|ice
    seal|la foca|mammal|none|ice
    walrus|la morsa|mammal|none|ice
    cow|la vaca|mammal|four|farm
    horse|el caballo|mammal|four|farm
    sheep|la oveja|mammal|four|farm
    hen|la gallina|bird|two|farm
    duck|el pato|bird|two|farm
    eagle|el águila|bird|two|mountain
    goat|la cabra|mammal|four|mountain
    bee|la abeja|insect|six|garden
    ant|la hormiga|insect|six|garden
    butterfly|la mariposa|insect|six|garden
    beetle|el escarabajo|insect|six|garden
    cricket|el grillo|insect|six|garden
""")

# food | food with its article | kind | colour | taste
FOODS = table("""
    banana|el plátano|fruit|yellow|sweet
    lemon|el limón|fruit|yellow|sour
    apple|la manzana|fruit|red|sweet
    cherry|la cereza|fruit|red|sweet
    strawberry|la fresa|fruit|red|sweet
    pear|la pera|fruit|green|sweet
    lime|la lima|fruit|green|sour
    orange|la naranja|fruit|orange|sweet
    plum|la ciruela|fruit|purple|sweet
    grape|la uva|fruit|purple|sweet
    carrot|la zanahoria|vegetable|orange|sweet
    pumpkin|la calabaza|vegetable|orange|sweet
    tomato|el tomate|vegetable|red|mild
    radish|el rábano|vegetable|red|hot
    spinach|la espinaca|vegetable|green|bitter
    cucumber|el pepino|vegetable|green|mild
    cabbage|la col|vegetable|green|mild
    pea|el guisante|vegetable|green|sweet
    corn|el maíz|vegetable|yellow|sweet
    beetroot|la remolacha|vegetable|purple|sweet
    rice|el arroz|grain|white|mild
    wheat|el trigo|grain|brown|mild
    oat|la avena|grain|brown|mild
    barley|la cebada|grain|brown|mild
    milk|la leche|drink|white|mild
    coffee|el café|drink|brown|bitter
    tea|el té|drink|brown|bitter
    wine|el vino|drink|purple|sour
    salt|la sal|spice|white|salty
    pepper|la pimienta|spice|black|hot
    ginger|el jengibre|spice|brown|hot
    mustard|la mostaza|spice|yellow|hot
""")

# element | symbol | state | kind (English only)
ELEMENTS = table("""
    iron|Fe|solid|metal
    gold|Au|solid|metal
    silver|Ag|solid|metal
    copper|Cu|solid|metal
    zinc|Zn|solid|metal
    tin|Sn|solid|metal
    lead|Pb|solid|metal
    nickel|Ni|solid|metal
    sodium|Na|solid|metal
    calcium|Ca|solid|metal
    mercury|Hg|liquid|metal
    bromine|Br|liquid|non-metal
    oxygen|O|gas|non-metal
    hydrogen|H|gas|non-metal
    nitrogen|N|gas|non-metal
    helium|He|gas|non-metal
    neon|Ne|gas|non-metal
    argon|Ar|gas|non-metal
    chlorine|Cl|gas|non-metal
    carbon|C|solid|non-metal
    sulphur|S|solid|non-metal
    iodine|I|solid|non-metal
""")

# tool | herramienta | what it does | lo que hace
TOOLS = table("""
    hammer|el martillo|drive nails|clavar clavos
    saw|la sierra|cut wood|cortar madera
    knife|el cuchillo|cut bread|cortar pan
    spoon|la cuchara|eat soup|comer sopa
    needle|la aguja|sew clothes|coser ropa
    scissors|las tijeras|cut paper|cortar papel
    broom|la escoba|sweep the floor|barrer el suelo
    spade|la pala|dig holes|cavar hoyos
    rake|el rastrillo|gather leaves|juntar hojas
    brush|el pincel|paint pictures|pintar cuadros
    pen|la pluma|write letters|escribir cartas
    oven|el horno|bake cakes|hornear pasteles
    kettle|la tetera|boil water|hervir agua
    lamp|la lámpara|light a room|alumbrar un cuarto
    clock|el reloj|tell the time|medir el tiempo
    umbrella|el paraguas|keep off the rain|parar la lluvia
    key|la llave|open doors|abrir puertas
    ladder|la escalera|climb walls|subir muros
    net|la red|catch fish|pescar peces
    rope|la cuerda|tie boats|atar barcos
    mirror|el espejo|see your face|ver tu cara
    towel|la toalla|dry your hands|secar tus manos
    basket|la cesta|carry fruit|llevar fruta
    map|el mapa|find the way|hallar el camino
""")

# word | opposite | palabra | opuesto
OPPOSITES = table("""
    hot|cold|caliente|frío
    big|small|grande|pequeño
    early|late|temprano|tarde
    open|closed|abierto|cerrado
    full|empty|lleno|vacío
    fast|slow|rápido|lento
    high|low|alto|bajo
    light|dark|claro|oscuro
    wet|dry|mojado|seco
    old|new|viejo|nuevo
    hard|soft|duro|blando
    loud|quiet|ruidoso|callado
    rich|poor|rico|pobre
    strong|weak|fuerte|débil
    true|false|verdadero|falso
    thick|thin|grueso|delgado
    near|far|cerca|lejos
    clean|dirty|limpio|sucio
    deep|shallow|hondo|llano
    wide|narrow|ancho|estrecho
    first|last|primero|último
    up|down|arriba|abajo
    cheap|expensive|barato|caro
    happy|sad|alegre|triste
""")

# job | oficio | where | dónde
JOBS = table("""
    dentist|dentista|clinic|clínica
    artist|artista|studio|estudio
    pianist|pianista|theatre|teatro
    singer|cantante|opera|ópera
    pilot|piloto|airport|aeropuerto
    guide|guía|museum|museo
    journalist|periodista|newspaper|periódico
    florist|florista|flower shop|floristería
    driver|taxista|bus station|estación
    judge|juez|court|tribunal
    baker|panadero|bakery|panadería
    farmer|granjero|farm|granja
    teacher|profesor|school|escuela
    librarian|bibliotecario|library|biblioteca
    nurse|enfermero|hospital|hospital
    cook|cocinero|restaurant|restaurante
""")

SPANISH = dict(
    table("""
    Europe|Europa
    Asia|Asia
    Africa|África
    North America|América del Norte
    South America|América del Sur
    Oceania|Oceanía
    French|francés
    Spanish|español
    Italian|italiano
    German|alemán
    Portuguese|portugués
    Greek|griego
    Polish|polaco
    Swedish|sueco
    Norwegian|noruego
    Finnish|finés
    Danish|danés
    Hungarian|húngaro
    English|inglés
    Icelandic|islandés
    Russian|ruso
    Romanian|rumano
    Bulgarian|búlgaro
    Croatian|croata
    Ukrainian|ucraniano
    Chinese|chino
    Japanese|japonés
    Nepali|nepalí
    Thai|tailandés
    Vietnamese|vietnamita
    Mongolian|mongol
    Turkish|turco
    Persian|persa
    Arabic|árabe
    Swahili|suajili
    Amharic|amárico
    mammal|mamífero
    bird|ave
    fish|pez
    insect|insecto
    reptile|reptil
    none|ninguna
    two|dos
    four|cuatro
    six|seis
    sea|mar
    river|río
    desert|desierto
    savanna|sabana
    jungle|selva
    forest|bosque
    ice|hielo
    farm|granja
    mountain|montaña
    garden|jardín
    fruit|fruta
    vegetable|verdura
    grain|grano
    drink|bebida
    spice|especia
    yellow|amarillo
    red|rojo
    green|verde
    orange|naranja
    purple|morado
    white|blanco
    brown|marrón
    black|negro
    sweet|dulce
    sour|ácido
    mild|suave
    bitter|amargo
    salty|salado
    hot|picante
    """)
)
"""English values of relations in Spanish."""
